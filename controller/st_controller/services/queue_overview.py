"""The queue as it stands, as far as one caller sees it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from sqlalchemy import ColumnElement, TextClause, func, select, text
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Owner, Reach
from st_controller.domain.scheduling.reservations import Reservation
from st_controller.domain.scheduling.scheduler import Scheduler
from st_controller.domain.scheduling.tenants import Node
from st_controller.services.actor import Actor
from st_controller.services.explaining import (
    AGE,
    in_reservations,
    moment_of,
    owners,
    tenant_view,
)
from st_controller.services.live_queue import LiveQueue
from st_controller.store.schema import Job
from st_controller.store.schema.jobs import DEPENDENT
from st_shared.protocol.queue import QueueView, ReservationView
from st_shared.protocol.states import JobState


def overview(session: Session, queue: LiveQueue, actor: Actor, now: datetime) -> QueueView:
    """Shares, counts and reservations: of the actor's organisation, or of all with that reach.

    The slots are those that all organisations share.
    """
    org = None if actor.reach("queue.view.all") is Reach.SYSTEM else actor.org
    with queue.current(session, now, AGE) as scheduler:
        open_hosts = [host for host in scheduler.fleet.hosts() if host.takes_jobs]
        kept = [each for each in scheduler.reservations if org in {None, each.job.tenant.org}]
        waits = in_reservations(scheduler)
        tenants = [
            tenant_view(node, waits[node.path])
            for node in _nodes(scheduler, now.timestamp())
            if sees_tenant(actor, node.path)
        ]
        return QueueView(
            made_at=now,
            waiting=_waiting(scheduler, org) + len(kept),
            held=_held(session, scheduler, org, now),
            running=sum(org in {None, each.job.tenant.org} for each in scheduler.held.values()),
            slots=sum(len(host.capacity.slots) for host in open_hosts),
            slots_taken=sum(running.slots for running in scheduler.held.values()),
            tenants=tenants,
            reservations=_reservations(session, actor, kept),
        )


def sees_tenant(actor: Actor, path: str) -> bool:
    """Whether the share of a node is for the actor's eyes: what is theirs and all above it."""
    reach = actor.reach("queue.view.all") or Reach.OWN
    if reach is Reach.SYSTEM:
        return True
    org, _, below = path.partition("/")
    team, _, user = below.partition("/")
    if org != actor.org:
        return False
    if reach is Reach.ORG or not team:
        return True
    return team in actor.teams and (reach is Reach.TEAM or user in {"", actor.username})


def _waiting(scheduler: Scheduler, org: str | None) -> int:
    if org is None:
        return len(scheduler.backlog.waiting)
    node = scheduler.tenants.find(org)
    return node.waiting if node else 0


def _held(session: Session, scheduler: Scheduler, org: str | None, now: datetime) -> dict[str, int]:
    found = dict(scheduler.backlog.held_by_reason(now.timestamp(), org))
    counts: Mapping[str, int] = {
        "dependency": _count(session, org, text(DEPENDENT)),
        "approval": _count(session, org, Job.state == JobState.AWAITING_APPROVAL),
    }
    found.update({code: count for code, count in counts.items() if count})
    return found


def _count(session: Session, org: str | None, condition: ColumnElement[bool] | TextClause) -> int:
    query = select(func.count()).select_from(Job).where(condition)
    return session.scalar(query if org is None else query.where(Job.org == org)) or 0


def _reservations(
    session: Session, actor: Actor, kept: Sequence[Reservation]
) -> list[ReservationView]:
    owned = owners(session, [each.job.id for each in kept])
    return [
        ReservationView(
            job_id=each.job.id if _is_seen(actor, owned.get(each.job.id)) else None,
            workers=[host.id for host in each.hosts],
            starts_by=moment_of(each.start),
            preempting=each.is_preempting,
        )
        for each in kept
    ]


def _is_seen(actor: Actor, owner: Owner | None) -> bool:
    return owner is not None and actor.reaches(owner, "job.view.all")


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
