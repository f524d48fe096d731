"""Journal lines: stored once, in order, whatever the wire does, and read back page by page."""

import pytest
from controller_steps import AT, log_line, metric_line, progress_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st_controller.errors import InvalidRequest, SequenceGap
from st_controller.services.journal_pieces import Wanted
from st_shared.protocol.journal import journal_event
from st_shared.protocol.states import Outcome


@pytest.fixture
def lease(steps):
    """A claimed attempt: ``(worker, attempt, job)``."""
    job_id, worker_id = steps.submit(), steps.join()
    return worker_id, steps.claimed(worker_id), job_id


def stored(steps, job_id, *, kind=None, **options):
    return steps.platform.lines.read(job_id, wanted=Wanted(kind), **options)


def places(lines) -> list[tuple[int, int]]:
    return [(line.attempt, line.seq) for line in lines]


def paged(steps, job_id, kind, limit):
    """All lines of a kind, read as the API's callers do: until a page is not full."""
    found, after = [], (0, 0)
    while True:
        page = stored(steps, job_id, after=after, kind=kind, limit=limit)
        found += page
        if len(page) < limit:
            return found
        after = (page[-1].attempt, page[-1].seq)


def test_lines_that_come_again_are_stored_once(steps, lease):
    worker_id, attempt_id, job_id = lease
    batch = [log_line(seq) for seq in (1, 2, 3)]
    assert steps.ship(worker_id, attempt_id, batch) == 3
    assert steps.ship(worker_id, attempt_id, batch) == 3
    assert steps.ship(worker_id, attempt_id, batch[:1]) == 3
    assert [line.body["message"] for line in stored(steps, job_id)] == [
        "line 1",
        "line 2",
        "line 3",
    ]


def test_of_a_batch_that_overlaps_only_the_rest_is_stored(steps, lease):
    worker_id, attempt_id, job_id = lease
    steps.ship(worker_id, attempt_id, [log_line(1), log_line(2)])
    other = [log_line(seq, f"again {seq}") for seq in (1, 2, 3)]
    assert steps.ship(worker_id, attempt_id, other) == 3
    assert [line.body["message"] for line in stored(steps, job_id)] == [
        "line 1",
        "line 2",
        "again 3",
    ]


def test_a_gap_is_refused_and_says_what_is_held(steps, lease):
    worker_id, attempt_id, job_id = lease
    steps.ship(worker_id, attempt_id, [log_line(1)])
    with pytest.raises(SequenceGap) as refused:
        steps.ship(worker_id, attempt_id, [log_line(3)])
    assert refused.value.problem().acked_seq == 1
    assert "line 2" in refused.value.hint
    assert places(stored(steps, job_id)) == [(1, 1)]


def test_lines_that_do_not_follow_each_other_are_refused_whole(steps, lease):
    worker_id, attempt_id, job_id = lease
    for lines in (
        [{"at": AT, "kind": "log", "message": "no seq"}],
        [log_line(0)],
        [{**log_line(1), "seq": "1"}],
        [log_line(1), log_line(3)],
        [log_line(2), log_line(1)],
        [log_line(1), log_line(1)],
    ):
        with pytest.raises(InvalidRequest):
            steps.ship(worker_id, attempt_id, lines)
    assert stored(steps, job_id) == []


BROKEN = [
    {"kind": "bogus"},
    {},
    {"kind": "log", "at": AT},
    {"kind": "log", "at": "2026-01-01T00:00:00", "message": "no time zone"},
    {"kind": "log", "at": AT, "message": "x" * 20_000},
    {"kind": {"odd": []}, "at": {}},
    {"kind": "metric", "at": AT, "step": 1, "values": {"loss": float("nan")}},
    {"kind": "progress", "at": AT, "phase": "flying", "step": 1, "steps": 2},
    progress_line(1, loss=float("inf")),
]


def test_lines_that_break_the_contract_are_kept_as_errors_for_people(steps, lease):
    worker_id, attempt_id, job_id = lease
    broken = [{**line, "seq": seq} for seq, line in enumerate(BROKEN, start=2)]
    last = len(broken) + 2
    assert steps.ship(worker_id, attempt_id, [log_line(1), *broken, log_line(last)]) == last
    first, *kept, final = stored(steps, job_id, kind="log")
    assert (first.seq, final.seq, len(kept)) == (1, last, len(BROKEN))
    for line in kept:
        assert line.body["level"] == "error"
        assert line.body["message"].startswith("a journal line could not be read (")
        assert journal_event.validate_python(line.body).at.tzinfo is not None
    assert steps.job(job_id).progress is None


def test_the_newest_progress_is_shown_on_the_job(steps, lease):
    worker_id, attempt_id, job_id = lease
    steps.ship(
        worker_id, attempt_id, [progress_line(1, 1), progress_line(2, 2, loss=0.5), log_line(3)]
    )
    progress = steps.job(job_id).progress
    assert (progress["step"], progress["steps"], progress["loss"]) == (2, 9, 0.5)
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED, last=3)
    steps.place()
    assert steps.job(job_id).progress is None


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_run_over_attempts_without_gaps_or_doubles(steps, lease, limit):
    worker_id, first, job_id = lease
    # Batches of several kinds, one of them without any log line, one that ends with none.
    steps.ship(worker_id, first, [log_line(1), metric_line(2), progress_line(3)])
    steps.ship(worker_id, first, [metric_line(4), progress_line(5)])
    steps.ship(worker_id, first, [progress_line(6), log_line(7)])
    steps.ship(worker_id, first, [log_line(8), log_line(9), metric_line(10)])
    steps.finish(worker_id, first, Outcome.PREEMPTED, last=10)
    second = steps.claimed(worker_id)
    steps.ship(worker_id, second, [log_line(1), metric_line(2)], epoch=2)
    logs, metrics = paged(steps, job_id, "log", limit), paged(steps, job_id, "metric", limit)
    assert places(logs) == [(1, 1), (1, 7), (1, 8), (1, 9), (2, 1)]
    assert places(metrics) == [(1, 2), (1, 4), (1, 10), (2, 2)]
    assert {line.body["kind"] for line in logs} == {"log"}
    everything = paged(steps, job_id, None, limit)
    assert places(everything) == [(1, seq) for seq in range(1, 11)] + [(2, 1), (2, 2)]


def test_eight_senders_of_one_batch_store_it_once(steps, lease, together):
    worker_id, attempt_id, job_id = lease
    batch = [log_line(seq) for seq in range(1, 51)]

    def send(turn):
        return steps.ship(worker_id, attempt_id, batch[: 20 + 5 * turn])

    assert max(together(send, range(7))) == 50
    assert places(stored(steps, job_id)) == [(1, seq) for seq in range(1, 51)]


@pytest.fixture
def roomy(steps) -> str:
    """A worker on which every example finds a slot."""
    return steps.join("roomy", slots=1000)


cuts = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=20)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=cuts)
def test_any_order_of_batches_and_resends_yields_each_line_once_and_in_order(steps, roomy, batches):
    job_id = steps.submit()
    attempt_id = steps.claimed(roomy)
    acked = 0
    for first, length in batches:
        lines = [log_line(seq) for seq in range(first, first + length)]
        if first > acked + 1:
            with pytest.raises(SequenceGap) as refused:
                steps.ship(roomy, attempt_id, lines)
            assert refused.value.acked_seq == acked
        else:
            acked = max(acked, first + length - 1)
            assert steps.ship(roomy, attempt_id, lines) == acked
    lines = stored(steps, job_id)
    assert [(line.seq, line.body["message"]) for line in lines] == [
        (seq, f"line {seq}") for seq in range(1, acked + 1)
    ]
    steps.finish(roomy, attempt_id, last=acked)
