"""The one place where a job's state is written."""

from sqlalchemy import update

from st_controller.domain.jobs import may_move
from st_controller.errors import Conflict, IllegalMove
from st_controller.services import topics
from st_controller.store.schema import Job, JobTransition
from st_controller.store.transaction import QUEUE, Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState


def begin_job(tx: Transaction, job: Job, actor: str) -> None:
    """Record a new job in its first state."""
    tx.session.add(job)
    tx.session.flush()
    _record(tx, job, None)
    tx.audit(actor, "job.submitted", job.id, name=job.name, state=job.state)
    tx.wake(QUEUE)


def move_job(
    tx: Transaction, job: Job, after: JobState, actor: str, reason: Reason | None = None
) -> None:
    """Change the state of ``job``, or refuse.

    Raises:
        IllegalMove: the transition table has no such step.
        Conflict: somebody else changed the job since it was read.
    """
    before = JobState(job.state)
    if not may_move(before, after):
        raise IllegalMove(f"a job that is {before} cannot become {after}")
    job.state = after
    _stamp(tx, job, after)
    job.reason = reason.model_dump() if reason else None
    changed = tx.session.execute(
        update(Job)
        .where(Job.id == job.id, Job.version == job.version)
        .values(version=job.version + 1)
        .execution_options(synchronize_session=False)
    )
    if changed.rowcount != 1:  # type: ignore[attr-defined]
        raise Conflict("the job was changed by somebody else just now", code="version_conflict")
    tx.session.refresh(job, ["version"])
    _record(tx, job, reason)
    tx.audit(actor, f"job.{after}", job.id, before=before, reason=reason.code if reason else None)
    if after is JobState.QUEUED or after.is_final:
        tx.wake(QUEUE)


def _stamp(tx: Transaction, job: Job, after: JobState) -> None:
    if after is JobState.QUEUED:
        job.queued_at = tx.now
    elif after is JobState.RUNNING and job.started_at is None:
        job.started_at = tx.now
    elif after.is_final:
        job.finished_at = tx.now


def _record(tx: Transaction, job: Job, reason: Reason | None) -> None:
    tx.session.add(
        JobTransition(
            job_id=job.id,
            version=job.version,
            state=job.state,
            at=tx.now,
            reason=reason.model_dump() if reason else None,
        )
    )
    tx.emit(topics.JOBS, "job", {"job_id": job.id, "submitted_by": job.submitted_by})
    tx.wake(topics.job(job.id))
