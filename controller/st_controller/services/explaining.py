"""Why jobs wait and when they will start, for the eyes of one caller."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from st_controller.domain.scheduling.forecast import Forecast
from st_controller.domain.scheduling.model import PendingJob
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
    QueueView,
    ReservationView,
    TenantView,
)
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState

AGE = timedelta(seconds=5)
"""How old the picture may be where this process does not schedule."""
MOST_AHEAD = 10


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
    owners = _owners(session, ahead)
    with queue.current(session, now, AGE) as scheduler:
        waits = scheduler.waiting(job.id)
        path = f"{job.org}/{job.team}/{_username(scheduler, job.id, waits)}"
        leaf = scheduler.tenants.find(path)
        return Explanation(
            job_id=job.id,
            state=job.state,
            reason=_reason(scheduler, job, now),
            place=forecast.place(job.id) if forecast else None,
            ahead=_ahead(scheduler, actor, ahead, owners, forecast) if forecast else [],
            starts_at=_moment(forecast.starts.get(job.id)) if forecast else None,
            starts_after=_moment(forecast.later_than(job.id)) if forecast else None,
            basis=_basis(job, waits) if waits else None,
            level=LevelView(
                asked=job.level,
                override=job.override,
                reached=_reached(scheduler, job, waits, now),
            ),
            shares=[_tenant(node) for node in leaf.ancestry if node.path] if leaf else [],
            made_at=now,
        )


def overview(session: Session, queue: LiveQueue, actor: Actor, now: datetime) -> QueueView:
    """The queue with its shares; of other tenants only with ``queue.view.all``."""
    everybody = actor.may("queue.view.all")
    own = _own_paths(session, actor)
    with queue.current(session, now, AGE) as scheduler:
        open_hosts = [host for host in scheduler.fleet.hosts() if host.takes_jobs]
        slots = sum(len(host.capacity.slots) for host in open_hosts)
        return QueueView(
            made_at=now,
            waiting=len(scheduler.backlog.waiting) + len(list(scheduler.reservations)),
            held=_held(session, scheduler, now),
            running=len(scheduler.held),
            slots=slots,
            slots_taken=sum(running.slots for running in scheduler.held.values()),
            tenants=[
                _tenant(node)
                for node in _nodes(scheduler, now.timestamp())
                if everybody or node.path in own
            ],
            reservations=_reservations(session, scheduler, actor),
        )


def _basis(job: Job, waits: PendingJob) -> Literal["declared", "learned", "time limit"]:
    if job.expected_seconds is not None:
        return "declared"
    return "learned" if waits.expected is not None else "time limit"


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
    owners: Mapping[str, str],
    forecast: Forecast,
) -> list[AheadView]:
    found = []
    for other in ids:
        waits = scheduler.waiting(other)
        if waits is not None:
            found.append(
                AheadView(
                    job_id=other if _may_see(actor, owners.get(other)) else None,
                    priority=waits.level.name.lower(),
                    slots=waits.shape.total,
                    starts_at=_moment(forecast.starts[other]) or datetime.now(UTC),
                )
            )
    return found


def _held(session: Session, scheduler: Scheduler, now: datetime) -> dict[str, int]:
    found = dict(scheduler.backlog.held_by_reason(now.timestamp()))
    counts: Mapping[str, int] = {
        "dependency": _count(session, JobState.QUEUED, Job.open_parents > 0),
        "approval": _count(session, JobState.AWAITING_APPROVAL, Job.open_parents >= 0),
    }
    found.update({code: count for code, count in counts.items() if count})
    return found


def _count(session: Session, state: JobState, condition: object) -> int:
    query = select(func.count()).select_from(Job).where(Job.state == state)
    return session.scalar(query.where(condition)) or 0  # type: ignore[arg-type]


def _reservations(session: Session, scheduler: Scheduler, actor: Actor) -> list[ReservationView]:
    kept = list(scheduler.reservations)
    owners = _owners(session, [reservation.job.id for reservation in kept])
    return [
        ReservationView(
            job_id=kept_for.job.id if _may_see(actor, owners.get(kept_for.job.id)) else None,
            workers=[host.id for host in kept_for.hosts],
            starts_by=_moment(kept_for.start),
            preempting=kept_for.is_preempting,
        )
        for kept_for in kept
    ]


def _own_paths(session: Session, actor: Actor) -> set[str]:
    user = session.get_one(User, actor.user_id)
    return {"", user.org, f"{user.org}/{user.team}", f"{user.org}/{user.team}/{user.username}"}


def _owners(session: Session, ids: Sequence[str]) -> dict[str, str]:
    rows = session.execute(select(Job.id, Job.submitted_by).where(Job.id.in_(ids)))
    return {job_id: owner for job_id, owner in rows}  # noqa: C416 - to mypy a Row is no pair


def _may_see(actor: Actor, owner: str | None) -> bool:
    return owner == actor.user_id or actor.may("job.view.all")


def _nodes(scheduler: Scheduler, now: float) -> Iterator[Node]:
    """All tenants; also those of whom only the share is known that was set for them."""
    yield from scheduler.tenants.settled(now)
    unknown = {
        above
        for path in scheduler.tenants.shared()
        for above in accumulate(path.split("/"), "{}/{}".format)
        if scheduler.tenants.find(above) is None
    }
    for path in sorted(unknown):
        yield Node(path, None, scheduler.tenants.share(path))


def _tenant(node: Node) -> TenantView:
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
        waiting=node.waiting,
    )


def _moment(seconds: float | None) -> datetime | None:
    if seconds is None or seconds == float("inf"):
        return None
    return datetime.fromtimestamp(seconds, UTC)
