"""The states that a job has been through."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.store.schema import JobTransition
from st_shared.protocol.resources import StateChange


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
