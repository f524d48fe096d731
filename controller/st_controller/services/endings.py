"""How an attempt ends, and what becomes of its job."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from st_controller.domain import use
from st_controller.domain.attempts import may_move
from st_controller.domain.jobs import AttemptEnd, after_attempt, backoff, counts_as_try
from st_controller.errors import IllegalMove
from st_controller.services import faulty_slots, gangs
from st_controller.services.moves import move_job, succeed_all
from st_controller.services.policy import ledger
from st_controller.services.worker_events import tell
from st_controller.store import direct
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import AttemptState, FailureKind, JobState, Outcome
from st_shared.protocol.worker import Failure, StopOrder

TOLD_OF_ROOM = timedelta(seconds=10)
"""Until every worker has told anew how much room it has."""


def end_attempt(
    tx: Transaction,
    attempt: Attempt,
    job: Job,
    outcome: Outcome,
    *,
    failure: Failure | None = None,
    unstored: Sequence[str] = (),
    used_seconds: float | None = None,
    actor: str = "system",
) -> None:
    """Finish an attempt and move its job on; frees the slots and voids the lease.

    Of an attempt with several members this ends one; the job moves on when all have ended.
    ``used_seconds`` is from ``use_told``; none: nobody told, so what is proven counts.
    """
    _must_be_finishable(attempt)
    if used_seconds is not None:
        direct.write(tx.session, attempt, {"used_seconds": used_seconds})
    kind = failure.kind if failure else None
    if gangs.only_missed_another(tx.session, attempt, outcome, kind):
        outcome, failure = Outcome.PREEMPTED, None
    ended = {
        "state": AttemptState.FINISHED,
        "outcome": outcome,
        "failure": failure.model_dump(mode="json") if failure else None,
        "unstored": list(unstored),
        "finished_at": tx.now,
        "lease_expires_at": None,
    }
    if attempt.nodes == 1 and attempt.released_at is None:
        ended["released_at"] = use.released([attempt], tx.now)
    is_news = outcome in {Outcome.LOST, Outcome.EXPIRED} or attempt.state == AttemptState.OFFERED
    direct.write(tx.session, attempt, ended)
    tx.audit(actor, f"attempt.{outcome}", attempt.id, job=job.id, worker=attempt.worker_id)
    if is_news:  # of all other ends its worker has told
        tell(tx, attempt.worker_id, StopOrder(attempt_id=attempt.id, reason="stale"))
    if failure is not None and failure.kind.suspects_slots:
        faulty_slots.note(tx, attempt, job, failure)
    members = [attempt]
    if attempt.nodes > 1:
        decided = gangs.settle(tx, attempt)
        if decided is None:
            return  # others have not ended yet
        if ledger.is_counted(job):
            members = gangs.members(tx.session, attempt)
        outcome = Outcome(str(decided.outcome))
        failure = Failure.model_validate(decided.failure) if decided.failure else None
        unstored = decided.unstored or ()
    ledger.settle(tx, [(job, members)])
    _move_on(tx, job, outcome, failure, actor, tuple(unstored))


def _move_on(
    tx: Transaction,
    job: Job,
    outcome: Outcome,
    failure: Failure | None,
    actor: str,
    unstored: tuple[str, ...],
) -> None:
    """Give the job the state that follows from how its attempt ended."""
    if counts_as_try(outcome):
        job.tries_used += 1
    if outcome is Outcome.SUCCEEDED and job.state == JobState.ASSIGNED:
        move_job(tx, job, JobState.RUNNING, actor)
    state, reason = after_attempt(
        AttemptEnd(
            outcome=outcome,
            failure=failure.kind if failure else None,
            message=failure.message if failure else None,
            tries_used=job.tries_used,
            max_attempts=job.max_attempts,
            cancel_requested=job.cancel_requested_at is not None,
            unstored=unstored,
            stop_reason=Reason.model_validate(job.stop_reason) if job.stop_reason else None,
        )
    )
    if state is JobState.QUEUED and outcome is Outcome.FAILED:
        # Only the moment moves: it keeps its turn, and jumps nobody's. What was lost with its
        # worker has waited for the lease to run out already.
        job.not_before = tx.now + backoff(job.spec["retry"]["backoff"], job.tries_used)
    elif state is JobState.QUEUED and failure and failure.kind is FailureKind.DISK_FULL:
        job.not_before = tx.now + TOLD_OF_ROOM  # else it would be offered there again at once
    move_job(tx, job, state, actor, reason)


def use_told(attempt: Attempt, told: float | None, now: datetime) -> float:
    """Seconds for which its slots were used, where its worker tells that its program has ended.

    None: it ended just now. What was told first stands.
    """
    if attempt.claimed_at is None or attempt.state == AttemptState.UPLOADING:
        return attempt.used_seconds
    seen = (now - attempt.claimed_at).total_seconds()
    return use.ended(attempt.used_seconds, seen if told is None else told, seen)


def end_well(tx: Transaction, pairs: Sequence[tuple[Attempt, Job]], used: Sequence[float]) -> None:
    """As ``end_attempt`` with the success that their workers tell, for many that are locked."""
    for attempt, _ in pairs:
        _must_be_finishable(attempt)
    ended = {
        "state": AttemptState.FINISHED,
        "outcome": Outcome.SUCCEEDED,
        "failure": None,
        "finished_at": tx.now,
        "lease_expires_at": None,
    }
    attempts = [attempt for attempt, _ in pairs]
    released = [attempt for attempt in attempts if attempt.released_at is not None]
    direct.write_all(tx.session, released, ended)
    told = {
        attempt: {
            **ended,
            "used_seconds": seconds,
            "released_at": use.after(attempt.claimed_at, seconds, tx.now),
        }
        for attempt, seconds in zip(attempts, used, strict=True)
        if attempt.released_at is None
    }
    direct.write_each(tx.session, list(told), list(told.values()))
    actors = [f"worker:{attempt.worker_id}" for attempt, _ in pairs]
    for actor, (attempt, job) in zip(actors, pairs, strict=True):
        ended_by = {"job": job.id, "worker": attempt.worker_id}
        tx.audit(actor, f"attempt.{Outcome.SUCCEEDED}", attempt.id, **ended_by)
    ledger.settle(tx, [(job, [attempt]) for attempt, job in pairs])
    succeed_all(tx, [job for _, job in pairs], actors)


def _must_be_finishable(attempt: Attempt) -> None:
    before = AttemptState(attempt.state)
    if not may_move(before, AttemptState.FINISHED):
        raise IllegalMove(f"an attempt that is {before} cannot be finished")
