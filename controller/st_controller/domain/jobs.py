"""The life of a job: every legal transition in one table, and what follows an attempt."""

from dataclasses import dataclass
from datetime import timedelta

from st_shared.protocol.resources import Reason
from st_shared.protocol.states import FailureKind, JobState, Outcome

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.AWAITING_APPROVAL: frozenset({JobState.QUEUED, JobState.REJECTED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.ASSIGNED, JobState.CANCELLED}),
    JobState.ASSIGNED: frozenset(
        {JobState.RUNNING, JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.AWAITING_APPROVAL}),
    JobState.CANCELLED: frozenset({JobState.QUEUED, JobState.AWAITING_APPROVAL}),
    JobState.REJECTED: frozenset(),
}
"""Which state may follow which; all writes go through this table.

Out of a final state there is one way: a person retries the job, which passes the rules once more.
"""

LONGEST_BACKOFF = 3600.0
"""Seconds; the longest pause between two tries."""


def may_move(before: JobState, after: JobState, *, by_retry: bool = False) -> bool:
    """Whether a job in ``before`` may become ``after``; only a retry leaves a final state."""
    return after in TRANSITIONS[before] and before.is_final == by_retry


def backoff(first: float, tries_used: int) -> timedelta:
    """The pause before the next try: ``first`` seconds, doubled with each try after the first."""
    # The exponent is bounded because 2**1100 is no float any more.
    return timedelta(seconds=min(first * 2.0 ** min(tries_used - 1, 64), LONGEST_BACKOFF))


@dataclass(frozen=True)
class AttemptEnd:
    """All that decides what becomes of a job when an attempt is over."""

    outcome: Outcome
    failure: FailureKind | None
    message: str | None
    tries_used: int
    """Attempts that count against the limit, this one included if it counts."""
    max_attempts: int
    cancel_requested: bool
    unstored: tuple[str, ...] = ()
    """A sentence for each file that could not be stored."""
    stop_reason: Reason | None = None
    """Why it was to be stopped for good, whatever its attempt says."""


def counts_as_try(outcome: Outcome) -> bool:
    """Whether an attempt uses up one of the job's tries.

    Losses count, so that a job which kills its workers cannot do so for ever; preemptions and
    offers that nobody claimed do not, because the job is not to blame.
    """
    return outcome in {Outcome.FAILED, Outcome.LOST}


def after_attempt(end: AttemptEnd) -> tuple[JobState, Reason | None]:
    """The job's next state, and why."""
    if end.outcome is Outcome.SUCCEEDED:
        return JobState.SUCCEEDED, _unstored(end.unstored) if end.unstored else None
    cancelled = _cancelled(end)
    if cancelled is not None:
        return JobState.CANCELLED, cancelled
    if not counts_as_try(end.outcome):
        said = end.message or _SENTENCES[end.outcome]  # why its worker gave it back, or was to
        return JobState.QUEUED, Reason(code=end.outcome.value, message=said)
    if end.failure and not end.failure.is_retryable:
        return JobState.FAILED, _failure(end, "trying again would not help")
    if end.tries_used >= end.max_attempts:
        return JobState.FAILED, _failure(end, f"all {end.max_attempts} attempts are used")
    return JobState.QUEUED, _again(end)


def _cancelled(end: AttemptEnd) -> Reason | None:
    if end.cancel_requested or end.outcome is Outcome.CANCELLED:
        return Reason(code="cancelled", message="Cancelled on request.")
    helps = end.failure is None or end.failure.is_retryable
    return end.stop_reason if helps else None


def _unstored(sentences: tuple[str, ...]) -> Reason:
    return Reason(
        code="not_all_stored",
        message="It succeeded, but not all that it made could be stored: " + " ".join(sentences),
        hint="the files stay on its worker; fetch them there, or mend the store and submit anew",
    )


def _failure(end: AttemptEnd, why_final: str) -> Reason:
    code = end.failure.value if end.failure else end.outcome.value
    said = end.message or _SENTENCES[end.outcome]
    mend = f"{end.failure.mend}, then" if end.failure else "mend the cause, then"
    return Reason(code=code, message=said, hint=f"{why_final}: {mend} `st retry` or submit anew")


def _again(end: AttemptEnd) -> Reason:
    code = end.failure.value if end.failure else end.outcome.value
    said = end.message or _SENTENCES[end.outcome]
    return Reason(
        code=code,
        message=f"{said} It is tried again ({end.tries_used} of {end.max_attempts} tries used).",
        hint=end.failure.mend if end.failure else None,
    )


_SENTENCES = {
    Outcome.EXPIRED: "No worker claimed the offer in time; it waits again.",
    Outcome.PREEMPTED: "Stopped at a checkpoint; it goes on when it is served again.",
    Outcome.LOST: "The worker fell silent and its lease ran out.",
    Outcome.FAILED: "The trainer ended with an error.",
}
