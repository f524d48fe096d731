"""Why jobs wait and when they will start, for the eyes of one caller."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Owner
from st_controller.domain.scheduling.forecast import Forecast
from st_controller.domain.scheduling.model import Level, PendingJob
from st_controller.domain.scheduling.scheduler import Scheduler
from st_controller.domain.scheduling.tenants import Node
from st_controller.domain.scheduling.waiting import reached_level, why_waiting
from st_controller.services.actor import Actor
from st_controller.services.live_queue import LiveQueue
from st_controller.store.schema import Job, User
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
_OWNER = (Job.submitted_by, Job.org, Job.team)
_OF_PARENTS = frozenset({"dependency", "parent_failed"})
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
    forecast = queue.forecast(session, now, AGE, job.id) if job.state == JobState.QUEUED else None
    ahead = _ahead(session, actor, job.id, forecast) if forecast else []
    username = session.scalar(select(User.username).where(User.id == job.submitted_by))
    with queue.current(session, now, AGE) as scheduler:
        waits, kept = scheduler.waiting(job.id), in_reservations(scheduler)
        return Explanation(
            job_id=job.id,
            state=job.state,
            reason=_reason(scheduler, job, now),
            place=forecast.place(job.id) if forecast else None,
            ahead=ahead,
            starts_at=moment_of(forecast.starts.get(job.id)) if forecast else None,
            starts_after=moment_of(forecast.later_than(job.id)) if forecast else None,
            basis=_basis(job, queue.learned(job)) if forecast else None,
            level=LevelView(
                asked=job.level,
                override=job.override,
                reached=_reached(scheduler, job, waits, now),
            ),
            shares=[
                tenant_view(node, kept[node.path])
                for node in _tenants(scheduler, job.org, job.team, username or "")
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
        if kept.get("code") in _OF_PARENTS:
            return Reason.model_validate(kept)
        return Reason(code="dependency", message="It starts after other jobs have succeeded.")
    return Reason(code="new", message="It was queued just now.")


def _tenants(scheduler: Scheduler, org: str, team: str, user: str) -> list[Node]:
    """A user and all above but the whole system, as far as anything is known of them."""
    paths = (f"{org}/{team}/{user}", f"{org}/{team}", org)
    return [node for path in paths if (node := scheduler.tenants.find(path))]


def _reached(scheduler: Scheduler, job: Job, waits: PendingJob | None, now: datetime) -> int:
    if waits is None:
        return job.level if job.override is None else job.override
    return 10 * reached_level(scheduler, waits, now.timestamp())


def _ahead(session: Session, actor: Actor, job_id: str, forecast: Forecast) -> list[AheadView]:
    """Those ahead that belong to the actor's organisation; of others nothing is told."""
    ids = forecast.ahead(job_id, MOST_AHEAD)
    query = select(Job.id, Job.level, Job.override, Job.slots, *_OWNER).where(Job.id.in_(ids))
    rows = {row.id: row for row in session.execute(query)}
    found = []
    for row in (rows[other] for other in ids if other in rows):
        owner = Owner(row.submitted_by, row.org, row.team)
        seen = actor.reaches(owner, "job.view.all")
        if seen or owner.org == actor.org:
            level = row.level if row.override is None else row.override
            found.append(
                AheadView(
                    job_id=row.id if seen else None,
                    priority=Level(level // 10).name.lower(),
                    slots=row.slots,
                    starts_at=_within_calendar(forecast.starts[row.id]),
                )
            )
    return found


def owners(session: Session, ids: Sequence[str]) -> dict[str, Owner]:
    """Whose these jobs are."""
    query = select(Job.id, *_OWNER).where(Job.id.in_(ids))
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
    return _within_calendar(seconds)


def _within_calendar(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
