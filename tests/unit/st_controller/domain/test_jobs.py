from dataclasses import replace

import pytest

from st_controller.domain.jobs import (
    TRANSITIONS,
    AttemptEnd,
    after_attempt,
    backoff,
    counts_as_try,
    may_move,
)
from st_shared.protocol.states import FailureKind, JobState, Outcome

END = AttemptEnd(
    outcome=Outcome.FAILED,
    failure=FailureKind.CRASHED,
    message="boom",
    tries_used=1,
    max_attempts=3,
    cancel_requested=False,
)


def test_the_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_what_awaits_approval_is_started_by_nothing() -> None:
    ways = {after for after in JobState if may_move(JobState.AWAITING_APPROVAL, after)}
    assert ways == {JobState.QUEUED, JobState.REJECTED, JobState.CANCELLED}


def test_nothing_but_a_retry_leaves_a_final_state() -> None:
    ways = [(before, after) for before in JobState for after in JobState]

    assert all(not may_move(before, after) for before, after in ways if before.is_final)
    assert {way for way in ways if may_move(*way, by_retry=True)} == {
        (ended, again)
        for ended in (JobState.FAILED, JobState.CANCELLED)
        for again in (JobState.QUEUED, JobState.AWAITING_APPROVAL)
    }
    assert {state for state in JobState if not TRANSITIONS[state]} == {
        JobState.SUCCEEDED,
        JobState.REJECTED,
    }


@pytest.mark.parametrize(
    ("first", "tries", "seconds"),
    [
        (10, 1, 10),
        (10, 2, 20),
        (10, 3, 40),
        (10, 9, 2560),
        (10, 10, 3600),
        (10, 100, 3600),
        (0.5, 1, 0.5),
        (7200, 1, 3600),
        (1e-300, 5000, 1e-300 * 2**64),
    ],
)
def test_the_pause_doubles_up_to_an_hour(first: float, tries: int, seconds: float) -> None:
    assert backoff(first, tries).total_seconds() == pytest.approx(seconds)


def test_every_state_is_reached_from_another() -> None:
    reached = set().union(*TRANSITIONS.values())

    assert reached == set(JobState)


def test_what_awaits_approval_can_never_start() -> None:
    assert not may_move(JobState.AWAITING_APPROVAL, JobState.ASSIGNED)
    assert not may_move(JobState.AWAITING_APPROVAL, JobState.RUNNING)


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (replace(END, outcome=Outcome.SUCCEEDED, failure=None), JobState.SUCCEEDED),
        (END, JobState.QUEUED),
        (replace(END, tries_used=3), JobState.FAILED),
        (replace(END, failure=FailureKind.BAD_DATA), JobState.FAILED),
        (replace(END, outcome=Outcome.LOST, failure=None), JobState.QUEUED),
        (replace(END, outcome=Outcome.LOST, failure=None, tries_used=3), JobState.FAILED),
        (replace(END, outcome=Outcome.PREEMPTED, failure=None, tries_used=3), JobState.QUEUED),
        (replace(END, outcome=Outcome.EXPIRED, failure=None, tries_used=3), JobState.QUEUED),
        (replace(END, outcome=Outcome.CANCELLED, failure=None), JobState.CANCELLED),
        (replace(END, cancel_requested=True), JobState.CANCELLED),
        (replace(END, outcome=Outcome.LOST, cancel_requested=True), JobState.CANCELLED),
        (
            replace(END, outcome=Outcome.SUCCEEDED, failure=None, cancel_requested=True),
            JobState.SUCCEEDED,
        ),
    ],
)
def test_what_follows_an_attempt(end: AttemptEnd, state: JobState) -> None:
    assert after_attempt(end)[0] is state


def test_a_failure_keeps_its_message() -> None:
    _, reason = after_attempt(replace(END, tries_used=3))

    assert reason is not None
    assert (reason.code, reason.message) == ("crashed", "boom")


def test_the_job_is_not_blamed_for_preemption_or_silence_before_the_claim() -> None:
    blamed = {outcome for outcome in Outcome if counts_as_try(outcome)}

    assert blamed == {Outcome.FAILED, Outcome.LOST}
