"""Lines that were moved to the object store: read as before, each once, and counted in curves."""

import asyncio
import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from controller_steps import log_line, metric_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from st_controller.errors import Unavailable
from st_controller.events.job_stream import JobPlace, follow_job
from st_controller.services import journal_archive, journal_pieces, journal_reading
from st_controller.services.journal_pieces import ALL, Wanted
from st_controller.services.journal_points import KEPT, evenly, read_points
from st_controller.services.journal_reading import JournalReader
from st_controller.store.schema import JournalChunk, JournalSegment
from st_shared.objectstore import StoreUnreachableError
from st_shared.protocol.sse import EventReader
from st_shared.protocol.states import Outcome


@pytest.fixture
def lease(steps):
    """A claimed attempt: ``(worker, attempt, job)``."""
    job_id, worker_id = steps.submit(), steps.join()
    return worker_id, steps.claimed(worker_id), job_id


def move_all(steps) -> int:
    with steps.db.read() as session:
        due = journal_archive.due(session)
    return sum(journal_archive.move(steps.db, steps.objects, attempt_id) for attempt_id in due)


def rows(steps, model) -> int:
    with steps.db.read() as session:
        return session.scalar(select(func.count()).select_from(model))


def read(steps, job_id, wanted=ALL, **options):
    """As another process would, which remembers nothing."""
    return JournalReader(steps.db, steps.objects).read(job_id, wanted=wanted, **options)


def events_of(steps, job_id):
    """Everything on the stream of a job that is over."""

    async def collect():
        return [chunk async for chunk in follow_job(steps.platform, job_id, JobPlace())]

    text = b"".join(asyncio.run(collect())).decode()
    return list(EventReader().read(text.split("\n")))


def places(lines):
    return [(line.attempt, line.seq) for line in lines]


def test_lines_of_an_attempt_that_is_over_are_read_from_the_object_store(steps, lease):
    worker_id, attempt_id, job_id = lease
    for seq in range(1, 10):
        steps.ship(worker_id, attempt_id, [log_line(seq, f"at {seq}\u2028\n")])
    assert move_all(steps) == 0  # too few, and more may come
    steps.finish(worker_id, attempt_id, last=9)
    before = read(steps, job_id)
    assert (move_all(steps), move_all(steps)) == (1, 0)
    assert (rows(steps, JournalChunk), rows(steps, JournalSegment)) == (0, 1)
    assert read(steps, job_id) == before
    assert places(read(steps, job_id, after=(1, 4), limit=3)) == [(1, 5), (1, 6), (1, 7)]
    (stat,) = steps.objects.list(f"jobs/{job_id}/journal/")
    text = gzip.decompress(b"".join(steps.objects.open(stat.key)))
    assert [json.loads(line)["seq"] for line in text.split(b"\n")] == list(range(1, 10))


def test_a_live_attempt_is_moved_as_soon_as_enough_has_come(steps, lease, monkeypatch):
    worker_id, attempt_id, job_id = lease
    monkeypatch.setattr(journal_archive, "SEGMENT_LINES", 4)
    for seq in range(1, 13, 2):
        steps.ship(worker_id, attempt_id, [log_line(seq), log_line(seq + 1)])
    while move_all(steps):
        pass
    assert (rows(steps, JournalChunk), rows(steps, JournalSegment)) == (2, 2)
    assert places(read(steps, job_id, limit=5)) == [(1, seq) for seq in range(1, 6)]
    assert places(read(steps, job_id)) == [(1, seq) for seq in range(1, 13)]
    assert places(JournalReader(steps.db, steps.objects).last(job_id, 7)) == [
        (1, seq) for seq in range(6, 13)
    ]


def test_who_dies_after_the_object_was_put_leaves_nothing_behind(steps, lease, monkeypatch):
    worker_id, attempt_id, job_id = lease
    steps.ship(worker_id, attempt_id, [log_line(1), log_line(2)])
    steps.finish(worker_id, attempt_id, last=2)
    with monkeypatch.context() as dying:
        dying.setattr(journal_archive, "_replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            move_all(steps)
    assert places(read(steps, job_id)) == [(1, 1), (1, 2)]
    assert move_all(steps) == 1
    assert len(list(steps.objects.list(f"jobs/{job_id}/journal/"))) == 1
    assert places(read(steps, job_id)) == [(1, 1), (1, 2)]


def test_two_who_move_the_same_move_it_once(steps, lease, together):
    worker_id, attempt_id, job_id = lease
    steps.ship(worker_id, attempt_id, [log_line(1)])
    steps.finish(worker_id, attempt_id, last=1)
    moved = together(lambda _: journal_archive.move(steps.db, steps.objects, attempt_id), range(4))
    assert sum(moved) == 1
    assert places(read(steps, job_id)) == [(1, 1)]


def test_a_store_that_is_away_leaves_the_lines_where_they_are(steps, lease, monkeypatch):
    worker_id, attempt_id, job_id = lease
    steps.ship(worker_id, attempt_id, [log_line(1)])
    steps.finish(worker_id, attempt_id, last=1)

    def away(*_args, **_options):
        raise StoreUnreachableError("it is away")

    with monkeypatch.context() as broken:
        broken.setattr(steps.objects, "put", away)
        with pytest.raises(StoreUnreachableError):
            move_all(steps)
    assert places(read(steps, job_id)) == [(1, 1)]
    move_all(steps)
    with monkeypatch.context() as broken:
        broken.setattr(steps.objects, "open", away)
        with pytest.raises(Unavailable, match="it is away"):
            read(steps, job_id)


def test_a_damaged_segment_is_told_and_never_shown(steps, lease):
    worker_id, attempt_id, job_id = lease
    steps.ship(worker_id, attempt_id, [log_line(1)])
    steps.finish(worker_id, attempt_id, last=1)
    move_all(steps)
    (stat,) = steps.objects.list(f"jobs/{job_id}/journal/")
    steps.objects.put(stat.key, io.BytesIO(b"something else"))
    with pytest.raises(Unavailable) as refused:
        read(steps, job_id)
    assert refused.value.code == "object_damaged"


def test_pages_are_bounded_in_bytes_and_in_pieces_and_nothing_is_left_out(
    steps, lease, monkeypatch
):
    worker_id, attempt_id, job_id = lease
    for seq in range(1, 21):
        steps.ship(worker_id, attempt_id, [log_line(seq)])
    monkeypatch.setattr(journal_pieces, "MOST", 3)
    reader, seqs, after, pages = JournalReader(steps.db, steps.objects), [], (0, 0), 0
    monkeypatch.setattr(journal_reading, "PAGE_BYTES", 2 * len(json.dumps(log_line(1))))
    while after is not None:
        page = reader.page(job_id, after=after, limit=100)
        seqs, after, pages = seqs + places(page.lines), page.after, pages + 1
        assert len(page.lines) <= 3
    assert seqs == [(1, seq) for seq in range(1, 21)]
    assert pages >= 7
    assert places(read(steps, job_id, limit=100)) == seqs
    assert places(reader.last(job_id, 2)) == seqs[-2:]
    steps.finish(worker_id, attempt_id, last=20)
    events = [event for event in events_of(steps, job_id) if event.event == "log"]
    assert [json.loads(event.data)["seq"] for event in events] == list(range(1, 21))


def test_a_segment_is_bounded_in_text_however_well_that_packs(steps, lease, monkeypatch):
    worker_id, attempt_id, job_id = lease
    monkeypatch.setattr(journal_archive, "SEGMENT_BYTES", 20_000)
    for seq in range(1, 7):
        steps.ship(worker_id, attempt_id, [log_line(seq, "x" * 9_000)])
    steps.finish(worker_id, attempt_id, last=6)
    while move_all(steps):
        pass
    assert rows(steps, JournalSegment) == 2
    assert places(read(steps, job_id)) == [(1, seq) for seq in range(1, 7)]


BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def timed(seq):
    return log_line(seq) | {"at": (BEGAN + timedelta(seconds=seq)).isoformat()}


@pytest.mark.parametrize("is_moved", [False, True])
def test_lines_are_chosen_by_attempt_and_time_and_from_the_end(steps, lease, is_moved):
    worker_id, first, job_id = lease
    steps.ship(worker_id, first, [timed(1), metric_line(2), timed(3)])
    steps.ship(worker_id, first, [timed(seq) for seq in (4, 5, 6)])
    steps.finish(worker_id, first, Outcome.PREEMPTED, last=6)
    second = steps.claimed(worker_id)
    steps.ship(worker_id, second, [timed(1), timed(2)], epoch=2)
    if is_moved:
        move_all(steps)
    since = BEGAN + timedelta(seconds=5)
    assert places(read(steps, job_id, Wanted("log", attempt=1))) == [
        (1, seq) for seq in (1, 3, 4, 5, 6)
    ]
    assert places(read(steps, job_id, Wanted("log", since=since))) == [(1, 5), (1, 6)]
    assert places(read(steps, job_id, Wanted("log", since=since), limit=1)) == [(1, 5)]
    reader = steps.platform.lines
    assert places(reader.last(job_id, 3, wanted=Wanted("log"))) == [(1, 6), (2, 1), (2, 2)]
    assert places(reader.last(job_id, 2, wanted=Wanted("log", 1))) == [(1, 5), (1, 6)]
    assert places(reader.last(job_id, 9, wanted=Wanted("log", since=since))) == [(1, 5), (1, 6)]
    earlier = reader.last(job_id, 3, before=(2, 1), wanted=Wanted("log"))
    assert places(earlier) == [(1, 4), (1, 5), (1, 6)]
    assert places(reader.last(job_id, 3, before=(1, 4), wanted=Wanted("log"))) == [(1, 1), (1, 3)]
    assert reader.last(job_id, 3, before=(1, 1)) == []


def upwards(steps, job_id, limit):
    """Log lines, last to first, read so many at a time."""
    reader, before = JournalReader(steps.db, steps.objects), None
    while page := reader.last(job_id, limit, before=before, wanted=Wanted("log")):
        assert len(page) <= limit
        yield from reversed(page)
        before = (page[0].attempt, page[0].seq)


def test_a_curve_is_bounded_however_long_the_run_was(steps, lease, monkeypatch):
    worker_id, attempt_id, job_id = lease
    monkeypatch.setattr(journal_archive, "SEGMENT_LINES", 500)
    for first in range(1, 2001, 250):
        steps.ship(worker_id, attempt_id, [metric_line(seq) for seq in range(first, first + 250)])
    while move_all(steps):
        pass
    steps.ship(worker_id, attempt_id, [metric_line(seq) for seq in range(2001, 2011)])

    def no_object(_key):
        raise AssertionError("an object was read")

    monkeypatch.setattr(steps.objects, "open", no_object)
    lines, total = read_points(steps.db, steps.platform.lines, job_id, 20)
    seqs = [line.seq for line in lines]
    assert (total, len(seqs), seqs[0], seqs[-1]) == (2010, 20, 1, 2010)
    gaps = [after - before for before, after in pairwise(seqs)]
    assert min(gaps) > 0
    assert max(gaps) < 2 * 2010 / 19
    every, _ = read_points(steps.db, steps.platform.lines, job_id, 5000)
    assert len(every) == 3 * KEPT + 510  # as many as lie in SQL, once three segments are moved
    assert every[0].body["values"]


@given(st.integers(0, 500), st.integers(1, 100))
def test_even_places_have_both_ends_and_no_doubles(total, count):
    chosen = evenly(total, count)
    assert len(chosen) == len(set(chosen)) == min(total, count)
    assert chosen == sorted(chosen)
    assert not total or chosen[-1] == total - 1


@pytest.fixture
def roomy(steps) -> str:
    """A worker on which every example finds a slot."""
    return steps.join("roomy", slots=1000)


steps_of_a_journal = st.lists(
    st.one_of(st.tuples(st.integers(1, 25), st.integers(1, 9)), st.just("move")), max_size=15
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(done=steps_of_a_journal, limit=st.integers(1, 7))
def test_moving_at_any_moment_neither_loses_nor_doubles_a_line(
    steps, roomy, monkeypatch, done, limit
):
    monkeypatch.setattr(journal_archive, "SEGMENT_LINES", 5)
    job_id = steps.submit()
    attempt_id = steps.claimed(roomy)
    acked = 0
    for step in done:
        if step == "move":
            move_all(steps)
            continue
        first, length = min(step[0], acked + 1), step[1]
        acked = max(acked, first + length - 1)
        lines = [log_line(seq) for seq in range(first, first + length)]
        assert steps.ship(roomy, attempt_id, lines) == acked
    found, after = [], (0, 0)
    while page := read(steps, job_id, Wanted("log"), after=after, limit=limit):
        found += page
        after = (page[-1].attempt, page[-1].seq)
    assert [line.body["message"] for line in found] == [f"line {n}" for n in range(1, acked + 1)]
    last = JournalReader(steps.db, steps.objects).last(job_id, limit)
    assert last == found[-limit:]
    assert list(upwards(steps, job_id, limit)) == found[::-1]
    steps.finish(roomy, attempt_id, last=acked)
