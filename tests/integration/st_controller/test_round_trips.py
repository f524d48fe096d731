"""What one job costs the database; a test that fails here says that it has become dearer."""

from contextlib import contextmanager

import pytest
from controller_steps import file_of
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from st_controller.services import finishing, submission
from st_controller.services import workers as workers_service
from st_controller.services.caller import WorkerCaller
from st_controller.services.finishing import Ending
from st_controller.services.joint_claims import JointClaims, Wanted
from st_controller.services.joint_finishes import JointFinishes
from st_controller.services.joint_submission import JointSubmission, Submission
from st_controller.services.live_queue import News
from st_controller.store import database
from st_shared.protocol.worker import FinishRequest

DONE = FinishRequest(epoch=1, outcome="succeeded", last_seq=0)
READ = 2
"""A look at the jobs that changed, and the end of its transaction."""
MOST = {
    "sqlite": {"submit": 8, "place": READ + 11, "claim": 4, "finish": 9, "look": READ},
    "postgresql": {"submit": 5, "place": READ + 8, "claim": 4, "finish": 9, "look": READ},
}
"""Statements, commits and rollbacks of one no-op job that is alone."""
MOST_OF_MANY = {"claim": 4, "finish": 11}
"""The same of twelve jobs of three workers that come together."""
MOST_SUBMITTED = {"sqlite": 7, "postgresql": 4}
"""The same of twelve submissions that come together: the policy's version, jobs with their first
states, what is told and noted, the end; SQLite takes each table alone."""

ANNOUNCE = 6
"""Of an announcement: its lease, what is known, what is stored, new rows, and the end."""


def caller(worker_id: str) -> WorkerCaller:
    return WorkerCaller(worker_id, "w", "digest")


@pytest.fixture
def said(db):
    """All that is said to the database, a word each."""
    words: list[str] = []

    def note(_connection, _cursor, statement, *_rest):
        words.append(statement.split()[0])

    for engine in db.engines:
        event.listen(engine, "before_cursor_execute", note)
        event.listen(engine, "commit", lambda _: words.append("COMMIT"))
        event.listen(engine, "rollback", lambda _: words.append("ROLLBACK"))

    @contextmanager
    def at_most(count: int):
        words.clear()
        yield
        spoken = [word for word in words if word not in {"SAVEPOINT", "BEGIN"}]
        assert len(spoken) <= count, spoken

    return at_most


@pytest.fixture
def submit(steps, db):
    joint = JointSubmission(db)
    draft = submission.check(steps.admin, {"name": "n", "noop": {}}, submission.NOTHING_MORE)
    return lambda: joint._alone(Submission(steps.admin, draft, None))[0]


@pytest.fixture
def joint(steps, db):
    return JointClaims(db, steps.objects, steps.patience), JointFinishes(db)


def test_a_job_that_is_alone(steps, said, submit, joint, db):
    worker_id = steps.join(slots=4)
    claims, finishes = joint
    for is_first in (True, False):  # at the first some things are learned
        bounds = MOST[db.engine.dialect.name]
        most = dict.fromkeys(bounds, 1000) if is_first else bounds
        with said(most["submit"]):
            job_id = submit()
        with said(most["place"]):
            assert steps.rounds.place(steps.lead, News(jobs={job_id})) == 1
        attempt_id = steps.offered(worker_id)
        with said(most["claim"]):
            assert claims._alone(Wanted(caller(worker_id), (attempt_id,))).claims
        with said(most["finish"]):
            assert finishes._alone((Ending(worker_id, attempt_id, DONE),)) == {}
        with said(most["look"]):
            steps.rounds.place(steps.lead, News(jobs={job_id}))


def test_submissions_that_come_together(steps, said, submit, db):
    crowd = JointSubmission(db)
    draft = submission.check(steps.admin, {"name": "n", "noop": {}}, submission.NOTHING_MORE)
    submit()
    with said(MOST_SUBMITTED[db.engine.dialect.name]):
        crowd._together([Submission(steps.admin, draft, None)] * 12)


def test_many_that_come_together(steps, said, submit, joint):
    workers = [steps.join(f"w{number}", slots=4) for number in range(3)]
    claims, finishes = joint
    ids = {submit() for _ in range(12)}
    assert steps.rounds.place(steps.lead, News(jobs=ids)) == 12
    with steps.db.read() as session:
        rows = [(each, workers_service.get_worker(session, each)) for each in workers]
        held = {
            each: [offer.attempt_id for offer in workers_service.sync(session, row).offers]
            for each, row in rows
        }
    with said(MOST_OF_MANY["claim"]):
        answers = claims._together([Wanted(caller(each), tuple(held[each])) for each in workers])
    assert sum(len(each.claims) for each in answers) == 12
    with said(MOST_OF_MANY["finish"]):
        refused = finishes._together(
            [tuple(Ending(each, attempt, DONE) for attempt in held[each]) for each in workers]
        )
    assert refused == [{}] * 3
    assert {steps.job(job_id).state for job_id in ids} == {"succeeded"}


def test_one_that_is_refused_harms_no_other(steps, submit, joint):
    one, two = steps.join("one"), steps.join("two")
    ids = [submit(), submit()]
    steps.rounds.place(steps.lead, News(jobs=set(ids)))
    held = {each: steps.offered(each) for each in (one, two)}
    claims, finishes = joint
    swapped, right = claims._together(
        [Wanted(caller(one), (held[two],)), Wanted(caller(two), (held[two],))]
    )
    assert (list(swapped.refused), len(right.claims)) == ([held[two]], 1)
    steps.claim(one, held[one])
    lie = Ending(two, held[one], DONE)
    late = Ending(one, held[one], FinishRequest(epoch=1, outcome="succeeded", last_seq=9))
    refused = finishes._together([(lie,), (late,), (Ending(two, held[two], DONE),)])
    assert [[error.code for error in each.values()] for each in refused] == [
        ["stale_lease"], ["sequence_gap"], [],
    ]  # fmt: skip
    with steps.db.write() as tx, pytest.raises(type(refused[0][held[one]])):
        finishing.finish(tx, two, held[one], DONE)


def test_a_connection_that_broke_while_nobody_used_it_is_replaced(db, monkeypatch):
    if db.is_sqlite:
        pytest.skip("it has no server")
    _break_all(db)
    monkeypatch.setattr(database, "ASKED_AFTER_SECONDS", 0.0)
    with db.read() as session:
        assert session.scalar(text("SELECT 1")) == 1


def test_one_that_broke_just_now_is_told_and_all_are_replaced(db, monkeypatch):
    if db.is_sqlite:
        pytest.skip("it has no server")
    monkeypatch.setattr(database, "ASKED_AFTER_SECONDS", 3600.0)
    _break_all(db)
    with pytest.raises(OperationalError), db.read() as session:
        session.scalar(text("SELECT 1"))
    with db.read() as one, db.read() as two:
        assert one.scalar(text("SELECT 1")) == two.scalar(text("SELECT 1")) == 1


def _break_all(db) -> None:
    """Two connections lie in the pool, and the server ends both."""
    with db.read() as one, db.read() as two:
        pids = [each.scalar(text("SELECT pg_backend_pid()")) for each in (one, two)]
    killer = database.Database(db.engine.url.render_as_string(hide_password=False))
    with killer.write() as tx:
        for pid in pids:
            tx.session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    killer.close()


def test_many_files_are_announced_as_cheaply_as_one(steps, said):
    worker_id = steps.join()
    steps.submit()
    attempt_id = steps.claimed(worker_id)
    files = [
        file_of(f"output/{number}", b"%d" % number, "output", None).model_copy(
            update={"possession": f"{number:064x}"}
        )
        for number in range(200)
    ]
    for _ in ("first", "again"):
        with said(ANNOUNCE):
            steps.announce(worker_id, attempt_id, *files)
