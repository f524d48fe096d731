"""Batches of many workers in one transaction: each as if it had come alone."""

import asyncio

import pytest
from controller_steps import log_line, progress_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from st_controller.errors import InvalidRequest, Refusal, SequenceGap, StaleLease
from st_controller.services.joint_journal import JointJournal, Shipment
from st_controller.store.database import DatabaseError
from st_controller.store.schema import Attempt
from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState
from st_shared.protocol.worker import EventBatch


@pytest.fixture
def leases(steps):
    """Claimed attempts of one worker: ``(worker, [(attempt, job), ...])``."""
    worker_id = steps.join(slots=8)
    jobs = [steps.submit(f"job{number}") for number in range(4)]
    found = []
    for job_id in jobs:
        steps.place()
        with steps.db.read() as session:
            (attempt_id,) = [
                each.id for each in session.query(Attempt).filter_by(job_id=job_id).all()
            ]
        steps.claim(worker_id, attempt_id)
        found.append((attempt_id, job_id))
    return worker_id, found


def shipment(worker_id, attempt_id, lines=(), *, epoch=1, state=None):
    return Shipment(worker_id, attempt_id, EventBatch(epoch=epoch, state=state, events=list(lines)))


def together(steps, *shipments):
    """What each is answered: the acknowledged line, or the class of the error."""
    answers = JointJournal(steps.db)._together(shipments)
    return [type(each) if isinstance(each, Refusal) else each.acked_seq for each in answers]


def messages(steps, job_id):
    return [line.body.get("message") for line in steps.platform.lines.read(job_id)]


def test_what_is_refused_of_one_harms_no_other(steps, leases):
    worker_id, [(first, job), (second, other), (third, _), (fourth, fresh)] = leases
    steps.ship(worker_id, second, [log_line(1)])
    answers = together(
        steps,
        shipment(worker_id, first, [log_line(1), log_line(2)], state=AttemptState.RUNNING),
        shipment(worker_id, second, [log_line(3)], state=AttemptState.RUNNING),
        shipment(worker_id, third, [log_line(1)], epoch=2),
        shipment("wkr_other", third, [log_line(1)]),
        shipment(worker_id, new_id("att"), [log_line(1)]),
        shipment(worker_id, third, [log_line(2), log_line(1)]),
        shipment(worker_id, fourth, [log_line(1), progress_line(2, step=5)]),
        shipment(worker_id, first, state=AttemptState.PREPARING),
    )
    assert answers == [2, SequenceGap, StaleLease, StaleLease, StaleLease, InvalidRequest, 2, 2]
    assert messages(steps, job) == ["line 1", "line 2"]
    assert messages(steps, other) == ["line 1"]
    assert (steps.job(job).state, steps.job(other).state) == ("running", "assigned")
    assert steps.job(fresh).progress["step"] == 5


def test_a_state_that_is_past_changes_nothing_and_its_lines_are_taken(steps, leases):
    worker_id, [(first, job), *_] = leases
    steps.ship(worker_id, first, state=AttemptState.UPLOADING)
    late = shipment(worker_id, first, [log_line(1)], state=AttemptState.RUNNING)
    assert together(steps, late) == [1]
    assert (steps.attempt(first).state, steps.job(job).state) == ("uploading", "running")


def test_batches_of_one_attempt_may_come_together(steps, leases):
    worker_id, [(first, job), *_] = leases
    lines = [log_line(seq) for seq in range(1, 7)]
    shipments = [
        shipment(worker_id, first, lines[:3]),
        shipment(worker_id, first, lines[1:5]),
        shipment(worker_id, first, lines[:2]),
        shipment(worker_id, first, lines[5:]),
    ]
    assert together(steps, *shipments) == [3, 5, 5, 6]
    assert messages(steps, job) == [f"line {seq}" for seq in range(1, 7)]


def test_a_commit_that_fails_acknowledges_nothing(steps, leases, monkeypatch):
    worker_id, [(first, job), *_] = leases

    def broken(*_):
        raise DatabaseError("the disk is full")

    joint = JointJournal(steps.db)
    with monkeypatch.context() as failing:
        failing.setattr("st_controller.services.journal.direct.write", broken)
        with pytest.raises(DatabaseError):
            asyncio.run(joint.take(worker_id, first, EventBatch(epoch=1, events=[log_line(1)])))
    assert messages(steps, job) == []
    assert together(steps, shipment(worker_id, first, [log_line(1)])) == [1]
    assert messages(steps, job) == ["line 1"]


crowds = st.lists(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=6
    ),
    max_size=6,
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(crowds=crowds)
def test_any_crowd_of_batches_leaves_each_line_once_and_in_order(steps, crowds):
    steps.join(f"w{new_id('x')[-12:]}", slots=4)
    job_ids = [steps.submit() for _ in range(4)]
    steps.place()
    with steps.db.read() as session:
        attempts = {each.job_id: each for each in session.query(Attempt).all()}
    held = [attempts[job_id] for job_id in job_ids]
    for attempt in held:
        steps.claim(attempt.worker_id, attempt.id)
    acked = [0] * 4
    for crowd in crowds:
        expected = []
        for which, first, length in crowd:
            last = first + length - 1
            if last > acked[which] and first > acked[which] + 1:
                expected.append(SequenceGap)
            else:
                acked[which] = max(acked[which], last)
                expected.append(acked[which])
        asked = [
            shipment(
                held[which].worker_id,
                held[which].id,
                [log_line(seq) for seq in range(first, first + length)],
            )
            for which, first, length in crowd
        ]
        assert together(steps, *asked) == expected
    for job_id, last in zip(job_ids, acked, strict=True):
        assert messages(steps, job_id) == [f"line {seq}" for seq in range(1, last + 1)]
    for attempt, last in zip(held, acked, strict=True):
        steps.finish(attempt.worker_id, attempt.id, last=last)
