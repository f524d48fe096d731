"""What is read for a page of a list does not grow with the list: counted, not timed."""

import pytest
from sqlalchemy import event, select, text

from st_controller.services import (
    durations,
    job_arrays,
    job_lists,
    queue_overview,
    queue_reading,
    submission,
)
from st_controller.services.live_queue import LiveQueue
from st_controller.store.schema import Job
from st_shared.protocol.resources import JobArrayRequest
from st_shared.protocol.states import JobState
from st_shared.spec.job import Priority

DEPTH = 1500
"""Jobs that wait, behind one that ended before; a page is a few."""
PAGE = 5
LOOKED_AT = 200
"""Rows that a page may read, of whatever it reads."""
_COPIES = """
    WITH RECURSIVE numbers (number) AS (
        SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :depth
    )
    INSERT INTO jobs ({columns}) SELECT {values} FROM jobs, numbers WHERE jobs.id = :job
"""


@pytest.fixture
def deep(steps):
    """One job of the admin that has ended, then many of somebody else that wait."""
    steps.ended = steps.submit("ended")
    steps.cancel(steps.ended)
    steps.clock.advance(seconds=60)
    steps.ann = steps.user("ann", "researcher", "default", "default")
    first = steps.submit("first", actor=steps.ann)
    with steps.db.write() as tx:
        names = [column.name for column in Job.__table__.columns]
        values = ["jobs.id || number" if name == "id" else f"jobs.{name}" for name in names]
        copies = text(_COPIES.format(columns=", ".join(names), values=", ".join(values)))
        tx.session.execute(copies, {"depth": DEPTH, "job": first})
    if not steps.db.is_sqlite:  # SQLite is never told of numbers
        with steps.db.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    return steps


class Looks:
    """The statements of some reading, and the rows that they look at."""

    def __init__(self, db) -> None:
        self._db, self.noted = db, []

    def __enter__(self):
        event.listen(self._db.engine, "before_cursor_execute", self._note)
        return self

    def __exit__(self, *_) -> None:
        event.remove(self._db.engine, "before_cursor_execute", self._note)

    def _note(self, _connection, _cursor, statement, values, *_) -> None:
        self.noted.append((statement, values))

    def rows(self) -> int:
        """Rows looked at: counted by PostgreSQL, and of SQLite steps of its machine by ten."""
        with self._db.engine.connect() as connection:
            raw = connection.connection.driver_connection
            count = _steps if self._db.is_sqlite else _rows
            return sum(count(raw, *each) for each in self.noted)


def _steps(raw, statement, values) -> int:
    steps = [0]

    def one_more() -> int:
        steps[0] += 1
        return 0

    raw.set_progress_handler(one_more, 10)
    raw.execute(statement, values).fetchall()
    raw.set_progress_handler(None, 0)
    return steps[0]


def _rows(raw, statement, values) -> int:
    ((plan,),) = raw.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).fetchall()
    found, nodes = 0, [plan[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", ())
        if "Relation Name" in node:
            seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            found += round(seen * node["Actual Loops"])
    return found


LISTS = {
    "all": {},
    "cancelled": {"states": [JobState.CANCELLED]},
    "cancelled or failed": {"states": [JobState.CANCELLED, JobState.FAILED]},
    "none that run": {"states": [JobState.RUNNING]},
    "none that are critical": {"priorities": [Priority.CRITICAL]},
    "none that are low or high": {"priorities": [Priority.LOW, Priority.HIGH]},
    "none that are high and failed": {
        "states": [JobState.FAILED], "priorities": [Priority.HIGH],
    },
    "normal and cancelled": {"states": [JobState.CANCELLED], "priorities": [Priority.NORMAL]},
    "mine": {"mine": True},
    "mine, cancelled": {"mine": True, "states": [JobState.CANCELLED]},
}  # fmt: skip


@pytest.mark.parametrize("filters", LISTS.values(), ids=LISTS)
def test_a_page_of_jobs_is_found_past_all_that_wait(deep, filters):
    with deep.db.read() as session, Looks(deep.db) as looks:
        found, _ = job_lists.list_jobs(session, deep.admin, limit=PAGE, **filters)
    assert looks.rows() <= LOOKED_AT
    if JobState.CANCELLED in filters.get("states", ()):
        assert [job.id for job in found] == [deep.ended]


def test_a_late_page_reads_no_more_than_the_first(deep):
    with deep.db.read() as session:
        _, cursor = job_lists.list_jobs(session, deep.admin, limit=500)
        for _ in range(1):
            _, cursor = job_lists.list_jobs(session, deep.admin, limit=500, cursor=cursor)
    with deep.db.read() as session, Looks(deep.db) as looks:
        found, _ = job_lists.list_jobs(session, deep.admin, limit=PAGE, cursor=cursor)
    assert len(found) == PAGE
    assert looks.rows() <= LOOKED_AT


@pytest.mark.parametrize("filters", [{}, {"states": [JobState.QUEUED]}], ids=["all", "queued"])
def test_who_has_few_jobs_finds_them_among_the_many_of_others(deep, filters):
    bob = deep.user("bob", "researcher", "default", "default")
    job_id = deep.submit("his", actor=bob)
    with deep.db.read() as session, Looks(deep.db) as looks:
        found, _ = job_lists.list_jobs(session, bob, limit=PAGE, **filters)
    assert [job.id for job in found] == [job_id]
    assert looks.rows() <= LOOKED_AT


def test_states_and_priorities_in_one_list_are_told_once_and_in_order(deep):
    high = deep.submit("high", priority="high")
    deep.clock.advance(seconds=1)
    low = deep.submit("low", priority="low")
    with deep.db.read() as session:
        both = [Priority.HIGH, Priority.LOW, Priority.HIGH]
        found, _ = job_lists.list_jobs(session, deep.admin, priorities=both)
        one, cursor = job_lists.list_jobs(session, deep.admin, priorities=both, limit=1)
        other, _ = job_lists.list_jobs(session, deep.admin, priorities=both, cursor=cursor)
    assert [job.id for job in found] == [low, high]
    assert [job.id for job in (*one, *other)] == [low, high]


def test_what_waits_for_others_is_found_past_all_that_wait_for_slots(deep):
    parent = deep.submit("parent")
    child = deep.submit("child", after=[parent])
    with deep.db.read() as session, Looks(deep.db) as looks:
        found = queue_reading.dependents(session, durations.Durations(), 500, set())
    assert [each.job.id for each in found] == [child]
    assert looks.rows() <= LOOKED_AT
    queue, now = LiveQueue(), deep.clock()
    with deep.db.read() as session:
        queue.load(session, now)
        queue.is_led = True
        with Looks(deep.db) as looks:
            told = queue_overview.overview(session, queue, deep.admin, now)
    assert told.held == {"dependency": 1}
    assert looks.rows() <= LOOKED_AT


def test_what_was_learned_is_read_past_all_that_wait(deep):
    with deep.db.read() as session, Looks(deep.db) as looks:
        durations.learn(session)
    assert looks.rows() <= LOOKED_AT


def test_the_queue_is_read_in_pages_each_after_the_last(deep):
    with deep.db.read() as session:
        first = queue_reading.waiting_after(session, durations.Durations(), None, 1200)
        turn = (first[-1].submitted, first[-1].id)
        with Looks(deep.db) as looks:
            rest = queue_reading.waiting_after(session, durations.Durations(), turn, PAGE)
    assert len(rest) == PAGE
    assert looks.rows() <= LOOKED_AT


def test_a_job_is_found_by_the_beginning_of_its_id_among_those_one_may_see(deep):
    with deep.db.read() as session, Looks(deep.db) as looks:
        found, _ = job_lists.list_jobs(session, deep.admin, beginning=deep.ended[:29], limit=PAGE)
    assert deep.ended in {job.id for job in found}
    assert all(job.id.startswith(deep.ended[:29]) for job in found)
    assert looks.rows() <= LOOKED_AT
    with deep.db.read() as session:
        of_ann, _ = job_lists.list_jobs(session, deep.ann, beginning=deep.ended)
        none, _ = job_lists.list_jobs(session, deep.admin, beginning="job_zzz")
        first, cursor = job_lists.list_jobs(session, deep.admin, beginning="job_0", limit=2)
        rest, _ = job_lists.list_jobs(
            session, deep.admin, beginning="job_0", limit=2, cursor=cursor
        )
    assert (of_ann, none) == ([], [])
    ids = [job.id for job in (*first, *rest)]
    assert len(set(ids)) == 4
    assert ids == sorted(ids, reverse=True) or not deep.db.is_sqlite  # by the rules of a language


def test_an_array_of_many_is_cancelled_in_as_few_statements_as_one_of_few(steps):
    said = {}
    for size in (2, 40):
        request = JobArrayRequest(spec={"name": "n", "noop": {}}, list=[{}] * size)
        batch = job_arrays.check(steps.admin, request, submission.NOTHING_MORE)
        with steps.db.write() as tx:
            array, _, _ = job_arrays.submit(tx, steps.admin, request, batch)
        with Looks(steps.db) as looks, steps.db.write() as tx:
            job_arrays.cancel(tx, steps.admin, array.id)
        said[size] = len(looks.noted)
        with steps.db.read() as session:
            assert job_arrays.counts(session, [array.id])[array.id] == {JobState.CANCELLED: size}
    assert said[40] == said[2]
    with steps.db.read() as session:
        job = session.scalars(select(Job).where(Job.array_id == array.id)).first()
    assert (job.finished_at, job.cancel_requested_at) == (steps.clock(), steps.clock())
    assert job.reason["code"] == "cancelled"
    actions = [entry.action for entry in steps.audit_of(job.id)]
    assert actions == ["job.submitted", "job.cancel_requested", "job.cancelled"]
