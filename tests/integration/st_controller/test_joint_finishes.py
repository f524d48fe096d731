"""Ends of attempts told together: each counts once, however often and by whom it is told."""

import pytest

from st_controller.errors import StaleLease
from st_controller.services.finishing import Ending
from st_controller.services.joint_finishes import JointFinishes
from st_shared.protocol.states import FailureKind, Outcome
from st_shared.protocol.worker import Failure, FinishRequest


@pytest.fixture
def together(steps):
    """Gives what is refused of calls that come at the same time, each of one end."""
    finishes = JointFinishes(steps.db)
    return lambda *calls: finishes._combining._answer([(call,) for call in calls])


def ending(worker_id: str, attempt_id: str, outcome: Outcome) -> Ending:
    failed = outcome is Outcome.FAILED
    failure = Failure(kind=FailureKind.CRASHED, message="it broke") if failed else None
    request = FinishRequest(epoch=1, outcome=outcome, failure=failure, last_seq=0)
    return Ending(worker_id, attempt_id, request)


@pytest.mark.parametrize(
    ("outcome", "state", "tries"),
    [
        (Outcome.SUCCEEDED, "succeeded", 0),
        (Outcome.FAILED, "queued", 1),
        (Outcome.CANCELLED, "cancelled", 0),
        (Outcome.PREEMPTED, "queued", 0),
    ],
)
def test_an_end_that_is_told_twice_at_once_counts_once(
    steps, running, together, outcome, state, tries
):
    worker_id, attempt_id, job_id = running
    before = steps.job(job_id).version
    call = ending(worker_id, attempt_id, outcome)
    assert together(call, call) == [{}, {}]
    job = steps.job(job_id)
    assert (job.state, job.version, job.tries_used) == (state, before + 1, tries)
    assert together(call, call) == [{}, {}]
    assert steps.job(job_id).version == before + 1


def test_of_two_ends_of_one_attempt_the_first_counts(steps, running, together):
    worker_id, attempt_id, job_id = running
    first, second = (
        ending(worker_id, attempt_id, outcome) for outcome in (Outcome.SUCCEEDED, Outcome.FAILED)
    )
    accepted, refused = together(first, second)
    assert accepted == {}
    assert isinstance(refused[attempt_id], StaleLease)
    assert (steps.job(job_id).state, steps.job(job_id).tries_used) == ("succeeded", 0)


def test_an_end_that_a_stranger_tells_with_it_is_refused_alone(steps, running, together):
    worker_id, attempt_id, job_id = running
    strange = ending(steps.join("other"), attempt_id, Outcome.FAILED)
    refused, accepted = together(strange, ending(worker_id, attempt_id, Outcome.SUCCEEDED))
    assert (list(refused), accepted) == ([attempt_id], {})
    assert steps.job(job_id).state == "succeeded"
