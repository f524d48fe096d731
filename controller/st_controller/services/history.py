"""The states that a job has been through."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.store.schema import Job, JobTransition
from st_shared.protocol.resources import StateChange
from st_shared.protocol.states import JobState


def transitions_after(session: Session, job_id: str, version: int) -> list[StateChange]:
    """Changes of a job's state after ``version``, in order."""
    rows = session.scalars(
        select(JobTransition)
        .where(JobTransition.job_id == job_id, JobTransition.version > version)
        .order_by(JobTransition.version)
    )
    return [
        StateChange.model_validate(
            {"version": row.version, "state": row.state, "at": row.at, "reason": row.reason}
        )
        for row in rows
    ]


def is_over(session: Session, job_id: str) -> bool:
    """Whether the job has reached its final state."""
    return JobState(session.scalars(select(Job.state).where(Job.id == job_id)).one()).is_final
