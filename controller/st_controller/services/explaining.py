"""Why jobs wait and when they will start, for the eyes of one caller."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Owner
from st_controller.domain.scheduling.forecast import Forecast
from st_controller.domain.scheduling.model import PendingJob
from st_controller.domain.scheduling.scheduler import Scheduler
from st_controller.domain.scheduling.tenants import Node
from st_controller.domain.scheduling.waiting import reached_level, why_waiting
from st_controller.services.actor import Actor
from st_controller.services.live_queue import LiveQueue
from st_controller.store.schema import Job
from st_shared.protocol.queue import (
    AheadView,
    Explanation,
    LevelView,
    TenantView,
)
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState

AGE = timedelta(seconds=5)
"""How old the picture may be where this process does not schedule."""
MOST_AHEAD = 10
_LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
"""Of the calendar; what is foretold for later is told as that."""


def reasons(
    session: Session, queue: LiveQueue, jobs: Sequence[Job], now: datetime
) -> dict[str, Reason]:
    """Why each of these jobs waits; those that do not wait are left out."""
    waiting = [job for job in jobs if job.state == JobState.QUEUED]
    if not waiting:
        return {}
    with queue.current(session, now, AGE) as scheduler:
        found = {job.id: _reason(scheduler, job, now) for job in waiting}
    return {job_id: reason for job_id, reason in found.items() if reason is not None}


def explain(
    session: Session, queue: LiveQueue, actor: Actor, job: Job, now: datetime
) -> Explanation:
    """All that is known of the wait of a job."""
    may_start = job.state == JobState.QUEUED and not job.open_parents
    forecast = queue.forecast(session, now, AGE) if may_start else None
    ahead = forecast.ahead(job.id, MOST_AHEAD) if forecast else []
    found = owners(session, ahead)
    with queue.current(session, now, AGE) as scheduler:
        waits = scheduler.waiting(job.id)
        path = f"{job.org}/{job.team}/{_username(scheduler, job.id, waits)}"
        leaf, kept = scheduler.tenants.find(path), in_reservations(scheduler)
        return Explanation(
            job_id=job.id,
            state=job.state,
            reason=_reason(scheduler, job, now),
            place=forecast.place(job.id) if forecast else None,
            ahead=_ahead(scheduler, actor, ahead, found, forecast) if forecast else [],
            starts_at=moment_of(forecast.starts.get(job.id)) if forecast else None,
            starts_after=moment_of(forecast.later_than(job.id)) if forecast else None,
            basis=_basis(job, queue.learned(job)) if waits else None,
            level=LevelView(
                asked=job.level,
                override=job.override,
                reached=_reached(scheduler, job, waits, now),
            ),
            shares=[
                tenant_view(node, kept[node.path])
                for node in (leaf.ancestry if leaf else ())
                if node.path
            ],
            made_at=now,
        )


def _basis(job: Job, learned: float | None) -> Literal["declared", "learned", "time limit"]:
    if job.expected_seconds is not None:
        return "declared"
    return "learned" if learned is not None else "time limit"


def _reason(scheduler: Scheduler, job: Job, now: datetime) -> Reason | None:
    if job.state != JobState.QUEUED:
        return Reason.model_validate(job.reason) if job.reason else None
    waits = scheduler.waiting(job.id)
    if waits is not None:
        return why_waiting(scheduler, waits, now.timestamp())
    if job.open_parents:
        kept = job.reason or {}
        if kept.get("code") == "parent_failed":
            return Reason.model_validate(kept)
        jobs = "another job" if job.open_parents == 1 else f"{job.open_parents} other jobs"
        return Reason(code="dependency", message=f"It starts after {jobs}, which must succeed.")
    return Reason(code="new", message="It was queued just now.")


def _username(scheduler: Scheduler, job_id: str, waits: PendingJob | None) -> str:
    running = scheduler.held.get(job_id)
    job = waits or (running.job if running else None)
    return job.tenant.user if job else ""


def _reached(scheduler: Scheduler, job: Job, waits: PendingJob | None, now: datetime) -> int:
    if waits is None:
        return job.level if job.override is None else job.override
    return 10 * reached_level(scheduler, waits, now.timestamp())


def _ahead(
    scheduler: Scheduler,
    actor: Actor,
    ids: Sequence[str],
    owned: Mapping[str, Owner],
    forecast: Forecast,
) -> list[AheadView]:
    """Those ahead that belong to the actor's organisation; of others nothing is told."""
    found = []
    for other in ids:
        waits, owner = scheduler.waiting(other), owned.get(other)
        if waits is None or owner is None:
            continue
        seen = actor.reaches(owner, "job.view.all")
        if seen or owner.org == actor.org:
            found.append(
                AheadView(
                    job_id=other if seen else None,
                    priority=waits.level.name.lower(),
                    slots=waits.shape.total,
                    starts_at=moment_of(forecast.starts[other]) or datetime.now(UTC),
                )
            )
    return found


def owners(session: Session, ids: Sequence[str]) -> dict[str, Owner]:
    """Whose these jobs are."""
    query = select(Job.id, Job.submitted_by, Job.org, Job.team).where(Job.id.in_(ids))
    return {row.id: Owner(row.submitted_by, row.org, row.team) for row in session.execute(query)}


def in_reservations(scheduler: Scheduler) -> Counter[str]:
    """By path of a tenant how many of its jobs have slots kept for them: they wait all the same."""
    found = Counter[str]()
    for reservation in scheduler.reservations:
        of = reservation.job.tenant
        found.update(("", of.org, f"{of.org}/{of.team}", of.path))
    return found


def tenant_view(node: Node, in_reservations: int) -> TenantView:
    """A node of the tree of tenants."""
    share = node.share
    return TenantView(
        path=node.path,
        weight=share.weight,
        max_jobs=share.max_jobs,
        max_slots=share.max_slots,
        usage=node.usage,
        forfeited=node.forfeited,
        within_share=node.is_within_share,
        active=node.is_active,
        running_jobs=node.running_jobs,
        running_slots=node.running_slots,
        waiting=node.waiting + in_reservations,
    )


def moment_of(seconds: float | None) -> datetime | None:
    """A moment of the scheduler, which may be none or never."""
    if seconds is None or seconds == float("inf"):
        return None
    return datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
