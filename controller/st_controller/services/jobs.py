"""Finding, cancelling and deleting jobs."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.attempts import LEASED, LIVE
from st_controller.errors import Conflict, NotFound, NotPermitted
from st_controller.services import dependencies, endings, gangs, topics
from st_controller.services.actor import Actor
from st_controller.services.moves import cancel_all
from st_controller.services.visibility import owner
from st_controller.services.worker_events import tell
from st_controller.store import direct
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import AttemptState, JobState, Outcome
from st_shared.protocol.worker import StopOrder


def get_job(session: Session, actor: Actor, job_id: str, *, lock: bool = False) -> Job:
    """A job that the actor may see, or ``NotFound``."""
    job = find_job(session, actor, job_id, lock=lock)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def find_job(session: Session, actor: Actor, job_id: str, *, lock: bool = False) -> Job | None:
    """A job; none where there is none that the actor may see."""
    query = select(Job).where(Job.id == job_id)
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None or job.deleted_at is not None:
        return None
    return job if actor.reaches(owner(job), "job.view.all") else None


def cancel(tx: Transaction, actor: Actor, job_id: str) -> Job:
    """Ask for the end of a job; a waiting one ends at once, a running one at its worker's word.

    Raises:
        Conflict: the job is over in another way.
    """
    job = get_job(tx.session, actor, job_id, lock=True)
    state = JobState(job.state)
    _must_be_permitted(actor, job, state)
    if state is JobState.CANCELLED or (job.cancel_requested_at and not state.is_final):
        return job
    if state.is_final:
        raise Conflict(f"the job is already {state}", code="already_final")
    stop(tx, actor, job, _live_attempts(tx.session, job))
    return job


def _must_be_permitted(actor: Actor, job: Job, state: JobState) -> None:
    """Who may take a job out of the line may not for that stop it once it runs."""
    area = ["job"] if state in {JobState.ASSIGNED, JobState.RUNNING} else ["job", "queue"]
    is_own = owner(job).user_id == actor.user_id
    if is_own and any(actor.may(f"{each}.cancel.own") for each in area):
        return
    if any(actor.covers(owner(job), f"{each}.cancel.all") for each in area):
        return
    needed = f"job.cancel.{'own' if is_own else 'all'}"
    raise NotPermitted(f"this needs the permission {needed!r}")


def delete(tx: Transaction, actor: Actor, job_id: str) -> None:
    """Take a job that is over out of every list; what it used still counts.

    Raises:
        Conflict: it is not over, or another waits for it to be tried again.
    """
    job = get_job(tx.session, actor, job_id, lock=True)
    actor.must_cover(owner(job), "job.delete.all")
    if not JobState(job.state).is_final:
        raise Conflict(
            f"the job is {job.state}",
            code="not_over",
            hint="`st cancel` it first",
        )
    if job.state != JobState.SUCCEEDED and (
        child := dependencies.waiting_child(tx.session, job.id)
    ):
        raise Conflict(
            f"{child} waits until it has succeeded",
            code="waited_for",
            hint=f"`st retry` it, or `st cancel {child}` first",
        )
    job.deleted_at = job.changed_at = tx.now
    tx.audit(actor.signature, "job.deleted", job.id, name=job.name, state=job.state)


def stop(tx: Transaction, actor: Actor, job: Job, live: Sequence[Attempt]) -> None:
    """End a locked job that is not over, or order its end where workers have it.

    ``live`` holds every live member of its attempt.
    """
    if not live:
        stop_waiting(tx, actor, [job])
        return
    job.cancel_requested_at = tx.now
    tx.audit(actor.signature, "job.cancel_requested", job.id)
    leased = [attempt for attempt in live if attempt.state in LEASED]
    for attempt in leased:
        attempt.stop = "cancel"
        tell(tx, attempt.worker_id, StopOrder(attempt_id=attempt.id, reason="cancel"))
    if leased:  # the scheduler may count on its slots
        job.changed_at = tx.now
        topics.tell_of(tx, job)
        topics.wake_queue(tx, [job.id])
    for attempt in live:
        if attempt.state == AttemptState.OFFERED:
            endings.end_attempt(tx, attempt, job, Outcome.CANCELLED, actor=actor.signature)


def stop_waiting(tx: Transaction, actor: Actor, jobs: Sequence[Job]) -> None:
    """End locked jobs that are not over and that no worker has."""
    if not jobs:
        return
    direct.write_all(tx.session, jobs, {"cancel_requested_at": tx.now})
    tx.audit_all(actor.signature, "job.cancel_requested", ((job.id, {}) for job in jobs))
    said = Reason(code="cancelled", message=f"Cancelled by {actor.username}.")
    cancel_all(tx, jobs, actor.signature, said)


def _live_attempts(session: Session, job: Job) -> list[Attempt]:
    newest = gangs.of_job(session, job.id, job.attempts)
    return [attempt for attempt in newest if attempt.state in LIVE]
