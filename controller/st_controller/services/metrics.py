"""Figures that are asked of SQL whenever they are scraped."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from st_controller.store.schema import Attempt, Job, SlotFault, Worker
from st_shared.protocol.states import JobState, Outcome, WorkerDesired, WorkerState


def jobs_by_state(session: OrmSession) -> dict[str, int]:
    """How many jobs are in each state, the empty ones too."""
    counted = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
    return {state.value: 0 for state in JobState} | dict(counted)


def workers_by_state(session: OrmSession) -> dict[str, int]:
    """How many workers are seen in each state, the empty ones too."""
    counted = session.execute(select(Worker.observed, func.count()).group_by(Worker.observed)).all()
    return {state.value: 0 for state in WorkerState} | dict(counted)


def faulty_slots(session: OrmSession) -> int:
    """Slots that are offered no more because they failed again and again, of workers that live."""
    lives = select(Worker.id).where(
        Worker.observed != WorkerState.GONE, Worker.desired != WorkerDesired.RETIRED
    )
    each = (
        select(SlotFault.worker_id, SlotFault.slot)
        .where(SlotFault.cordons, SlotFault.worker_id.in_(lives))
        .distinct()
        .subquery()
    )
    return session.scalar(select(func.count()).select_from(each)) or 0


def attempts_by_outcome(session: OrmSession) -> dict[str, int]:
    """How many attempts have ended in each way, the ways that none took too."""
    counted = session.execute(
        select(Attempt.outcome, func.count())
        .where(Attempt.outcome.is_not(None))
        .group_by(Attempt.outcome)
    ).all()
    found = {outcome: count for outcome, count in counted if outcome}
    return {outcome.value: 0 for outcome in Outcome} | found
