"""Cancelling a job, whatever it is doing."""

import pytest

from st_controller.domain.policy.roles import Role
from st_controller.domain.workers import Patience
from st_controller.errors import Conflict, NotFound, StaleLease
from st_controller.services import offers, workers
from st_controller.store.schema import Worker
from st_shared.protocol.states import (
    JobState,
    Outcome,
)
from st_shared.protocol.worker import StopOrder

PATIENCE = Patience()


def test_a_waiting_job_ends_at_once(steps):
    job_id = steps.submit()
    steps.cancel(job_id)
    steps.cancel(job_id)
    job = steps.job(job_id)
    assert (job.state, job.version) == (JobState.CANCELLED, 2)
    assert job.reason["message"] == "Cancelled by root."


def test_an_offer_is_withdrawn(steps):
    job_id, worker_id = steps.submit(), steps.join()
    steps.place()
    attempt_id = steps.offered(worker_id)
    steps.cancel(job_id)
    assert steps.job(job_id).state == JobState.CANCELLED
    with pytest.raises(StaleLease):
        steps.claim(worker_id, attempt_id)
    stops = [event.body for event in steps.events(f"worker:{worker_id}") if event.kind == "stop"]
    assert stops == [{"attempt_id": attempt_id, "reason": "stale"}]


def test_a_running_job_ends_at_its_workers_word(steps, running):
    worker_id, attempt_id, job_id = running
    steps.cancel(job_id)
    steps.cancel(job_id)
    assert steps.job(job_id).state == JobState.RUNNING
    order = StopOrder(attempt_id=attempt_id, reason="cancel")
    told = [event.body for event in steps.events(f"worker:{worker_id}") if event.kind == "stop"]
    assert told == [order.model_dump()]
    assert steps.beat(worker_id, attempt_id).stops == [order]
    with steps.db.read() as session:
        assert workers.sync(session, session.get_one(Worker, worker_id)).stops == [order]
    steps.finish(worker_id, attempt_id, Outcome.CANCELLED)
    assert steps.job(job_id).state == JobState.CANCELLED
    told = [event.body for event in steps.events(f"worker:{worker_id}") if event.kind == "stop"]
    assert told == [order.model_dump()]  # it knows that this is over


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.PREEMPTED])
def test_what_was_cancelled_is_not_tried_again(steps, running, outcome):
    worker_id, attempt_id, job_id = running
    steps.cancel(job_id)
    steps.finish(worker_id, attempt_id, outcome)
    assert steps.job(job_id).state == JobState.CANCELLED


def test_a_job_that_is_cancelled_ends_even_if_its_worker_never_answers(steps, running):
    _, _, job_id = running
    steps.cancel(job_id)
    steps.wait(PATIENCE.lease_ttl)
    assert steps.job(job_id).state == JobState.CANCELLED


def test_what_has_ended_otherwise_cannot_be_cancelled(steps, running):
    worker_id, attempt_id, job_id = running
    steps.finish(worker_id, attempt_id)
    with pytest.raises(Conflict) as refused:
        steps.cancel(job_id)
    assert refused.value.code == "already_final"


def test_one_may_not_cancel_what_one_may_not_see(steps, running):
    ann = steps.user("ann", Role.RESEARCHER)
    with pytest.raises(NotFound):
        steps.cancel(running[2], ann)
    assert steps.job(running[2]).cancel_requested_at is None


@pytest.mark.parametrize("why", ["cancel", "preempt"])
def test_what_stops_already_is_not_told_to_yield(steps, running, why):
    _, attempt_id, job_id = running
    steps.clock.advance(1)
    if why == "cancel":
        steps.cancel(job_id)
    else:
        with steps.db.write() as tx:
            assert offers.preempt(tx, job_id, "job_urgent")
        assert steps.job(job_id).changed_at == steps.clock()  # other leaders see that it changed
    counted = steps.job(job_id).preemptions
    with steps.db.write() as tx:
        assert offers.preempt(tx, job_id, "job_other") is None
    assert steps.attempt(attempt_id).stop == why
    assert steps.job(job_id).preemptions == counted == (why == "preempt")
