"""Slots whose accelerators fail again and again."""

import pytest
from controller_steps import document
from sqlalchemy import select

from st_controller.services import faulty_slots, finishing, job_arrays, metrics, workers
from st_controller.services.drafts import Rules
from st_controller.store.schema import SlotFault
from st_shared.protocol.resources import JobArrayRequest
from st_shared.protocol.states import FailureKind, Outcome, WorkerDesired
from st_shared.protocol.worker import FinishRequest


def fail(steps, worker_id, kind=FailureKind.DEVICE_FAULT):
    attempt_id = steps.claimed(worker_id)
    epoch = steps.attempt(attempt_id).epoch
    steps.finish(worker_id, attempt_id, Outcome.FAILED, epoch=epoch, failure=kind)


def faulty(steps):
    [view] = steps.worker_views()
    return [(slot.index, slot.message) for slot in view.faulty]


def figure(steps) -> int:
    """What monitoring is told."""
    with steps.db.read() as session:
        return metrics.faulty_slots(session)


@pytest.fixture
def failing(steps):
    """A worker of one slot, and a job for each time that it is to fail."""
    worker_id = steps.join()
    for number in range(faulty_slots.MOST + 1):
        steps.submit(f"job-{number}", retry={"max_attempts": 1})
    return worker_id


def test_a_slot_is_cordoned_after_so_many_faults_and_the_worker_shows_why(steps, failing):
    for _ in range(faulty_slots.MOST - 1):
        fail(steps, failing)
        assert faulty(steps) == []
    fail(steps, failing)
    assert faulty(steps) == [(0, "it broke")]
    assert steps.place() == 0
    assert "slot.cordoned" in [entry.action for entry in steps.audit_of(failing)]


def test_a_person_offers_it_again_and_it_starts_anew(steps, failing):
    for _ in range(faulty_slots.MOST):
        fail(steps, failing)
    steps.order(failing, WorkerDesired.ACTIVE)
    assert faulty(steps) == []
    fail(steps, failing)
    assert faulty(steps) == []


def test_a_worker_that_is_retired_leaves_no_faults_behind(steps, failing):
    for _ in range(faulty_slots.MOST):
        fail(steps, failing)
    steps.order(failing, WorkerDesired.RETIRED)
    with steps.db.read() as session:
        assert session.scalars(select(SlotFault)).all() == []


def test_what_a_program_wrote_is_kept_whatever_its_characters(steps, failing):
    attempt_id = steps.claimed(failing)
    failure = {"kind": FailureKind.DEVICE_FAULT, "message": "Xid\0 79"}
    told = FinishRequest(epoch=1, outcome=Outcome.FAILED, failure=failure, last_seq=0)
    with steps.db.write() as tx:
        finishing.finish(tx, failing, attempt_id, told)
    with steps.db.read() as session:
        assert session.scalar(select(SlotFault.message)) == "Xid\ufffd 79"
    assert steps.attempt(attempt_id).failure["message"] == "Xid\ufffd 79"


def test_other_failures_leave_the_slot_alone(steps, failing):
    for kind in (FailureKind.CRASHED, FailureKind.OUT_OF_MEMORY, FailureKind.PEER_LOST):
        fail(steps, failing, kind)
    assert faulty(steps) == []


def test_faults_that_lie_far_apart_do_not_add_up(steps, failing):
    for _ in range(faulty_slots.MOST):
        fail(steps, failing)
        steps.clock.advance(faulty_slots.WINDOW.total_seconds())
        steps.beat(failing)
    assert faulty(steps) == []


def test_one_program_that_fails_everywhere_says_nothing_of_the_slots(steps):
    worker_id = steps.join()
    steps.submit(retry={"max_attempts": faulty_slots.MOST, "backoff": "1s"})
    for _ in range(faulty_slots.MOST):
        fail(steps, worker_id)
        steps.clock.advance(10)
        steps.beat(worker_id)
    spec = document(retry={"max_attempts": 1})
    asked = {"spec": spec, "grid": {"training.seed": list(range(faulty_slots.MOST))}}
    request = JobArrayRequest.model_validate(asked)
    drafts = job_arrays.check(steps.admin, request, Rules())
    with steps.db.write() as tx:
        job_arrays.submit(tx, steps.admin, request, drafts, None)
    for _ in range(faulty_slots.MOST):
        fail(steps, worker_id)
    assert faulty(steps) == []  # a job and an array: two submissions
    steps.submit(retry={"max_attempts": 1})
    fail(steps, worker_id)
    assert faulty(steps) == [(0, "it broke")]


def test_the_other_slots_of_the_worker_are_offered_on(steps):
    worker_id = steps.join(slots=2)
    for number in range(faulty_slots.MOST + 1):
        steps.submit(f"job-{number}", retry={"max_attempts": 1})
        steps.place()
        with steps.db.read() as session:
            found = workers.live_attempts(session, [worker_id])[worker_id]
        for attempt in found:
            steps.claim(worker_id, attempt.id)
            failed = attempt.slots == [0]
            outcome = Outcome.FAILED if failed else Outcome.PREEMPTED
            kind = FailureKind.DEVICE_FAULT if failed else None
            steps.finish(worker_id, attempt.id, outcome, epoch=attempt.epoch, failure=kind)
    assert [slot for slot, _ in faulty(steps)] == [0]
    steps.place()
    with steps.db.read() as session:
        [held] = workers.live_attempts(session, [worker_id])[worker_id]
    assert held.slots == [1]


def gone(steps, seconds: float) -> None:
    """Nobody is heard for so long, and the leader looks now and then."""
    for _ in range(2):
        steps.clock.advance(seconds / 2)
        steps.sweep()


def test_an_ephemeral_worker_that_vanished_leaves_no_faults_behind(steps, failing):
    with steps.db.write() as tx:
        workers.get_worker(tx.session, failing).ephemeral = True
    for _ in range(faulty_slots.MOST):
        fail(steps, failing)
    assert figure(steps) == 1
    gone(steps, 1800)
    assert steps.worker(failing).desired == WorkerDesired.ACTIVE  # it may come back
    assert figure(steps) == 0  # and is nobody's business meanwhile
    gone(steps, 1900)
    assert steps.worker(failing).desired == WorkerDesired.RETIRED
    with steps.db.read() as session:
        assert session.scalars(select(SlotFault)).all() == []
    assert "worker.retired" in [entry.action for entry in steps.audit_of(failing)]


def test_the_slots_of_a_host_that_stays_are_not_offered_when_it_comes_back(steps, failing):
    for _ in range(faulty_slots.MOST):
        fail(steps, failing)
    gone(steps, 7 * 86_400)
    steps.beat(failing)
    assert faulty(steps) == [(0, "it broke")]
    assert figure(steps) == 1


def test_faults_that_are_too_old_to_count_are_dropped(steps, failing):
    fail(steps, failing)
    gone(steps, faulty_slots.WINDOW.total_seconds() + 120)
    with steps.db.read() as session:
        assert session.scalars(select(SlotFault)).all() == []
