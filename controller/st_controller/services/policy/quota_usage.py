"""Quotas as people see them: what is used, held and left, and when it runs out."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from st_controller.domain.policy import forecast, periods, quotas
from st_controller.domain.policy.periods import Period
from st_controller.domain.policy.quotas import HELD, RUNNING, Counter, Kind, Meter, Place, Quota
from st_controller.domain.policy.reach import Reach
from st_controller.errors import NotFound
from st_controller.services.actor import Actor
from st_controller.services.policy import quota_book, quota_setting, reservation, stock, tenants
from st_controller.services.policy.quota_book import QuotaBook
from st_controller.services.policy.quota_setting import WHOLE
from st_controller.store.schema import Charge
from st_shared.protocol.quotas import QuotaUsage, QuotaView, Spending, UsageView

VIEW = "quota.view"


def usage(session: Session, actor: Actor, path: str | None, now: datetime) -> UsageView:
    """The limits that hold at a node, those above it first, and how much of them is taken.

    Raises:
        NotFound: the node is not for the actor's eyes.
    """
    wanted = own(actor) if path is None else quota_setting.place_of(path)
    if not may_see(actor, wanted):
        raise NotFound(f"there is nothing to see of {path}")
    book = quota_book.read(session)
    found = [
        _usage(session, place, quota, now)
        for node in _above(wanted)
        if may_see(actor, node)
        for place in book.places_at(session, node)
        for quota in place.quotas
    ]
    return UsageView(
        path=wanted or WHOLE,
        time_zone=str(book.zone(wanted)),
        quotas=found,
        spending=_spending(session, book, wanted, now),
        made_at=now,
    )


def list_quotas(session: Session, actor: Actor) -> list[QuotaView]:
    """The limits that bind the actor or that they may see, outermost first."""
    book = quota_book.read(session)
    visible = [quota for quota in book.quotas if _may_see_limit(actor, quota)]
    visible.sort(key=lambda quota: (quota.path.split("/"), quota.role, quota.kind, quota.action))
    return [quota_setting.view(quota) for quota in visible]


def own(actor: Actor) -> str:
    """The node of the actor."""
    return f"{actor.org}/{actor.team}/{actor.username}"


def may_see(actor: Actor, path: str) -> bool:
    """Whether a node is one's own or above it, or within what ``quota.view`` covers.

    What the whole system used says something of every organisation.
    """
    reach = actor.reach(VIEW)
    if reach is Reach.SYSTEM:
        return True
    org, team, user, *_ = [*path.split("/"), "", "", ""]
    if org != actor.org:
        return False
    if not team or reach is Reach.ORG:
        return True
    mine = team in actor.teams or team == actor.team
    return mine and (not user or user == actor.username or reach is Reach.TEAM)


def _may_see_limit(actor: Actor, quota: Quota) -> bool:
    """As its node; what users have by their roles is told to those who have it, or look after it.

    That says nothing of what anybody used.
    """
    if not quota.role:
        return may_see(actor, quota.path)
    if quota.role == actor.role:
        return quota.path in {"", actor.org, *(f"{actor.org}/{team}" for team in actor.teams)}
    reach = actor.reach(VIEW)
    return reach is not None and reach > Reach.OWN and may_see(actor, quota.path)


def _above(path: str) -> Iterator[str]:
    parts = path.split("/") if path else []
    for depth in range(len(parts) + 1):
        yield "/".join(parts[:depth])


def _usage(session: Session, place: Place, quota: Quota, now: datetime) -> QuotaUsage:
    counter = _taken(session, place, now)
    renews = place.renews(now)
    left = max(0, quota.amount - counter.total)
    pace = _pace(session, place, counter, now)
    runs_out = None
    if pace is not None:
        runs_out = forecast.runs_out(
            used=counter.total, limit=quota.amount, pace=pace, now=now, renews=renews
        )
    said = quota_setting.view(quota).model_dump()
    return QuotaUsage(
        **said,
        used=quotas.spoken(place.kind, counter.used),
        held=quotas.spoken(place.kind, counter.held),
        left=quotas.spoken(place.kind, left),
        renews_at=renews,
        runs_out_at=runs_out,
    )


def _taken(session: Session, place: Place, now: datetime) -> Counter:
    if place.meter in RUNNING:
        return reservation.running(session, place)
    return stock.look(session, place, now)


def _pace(session: Session, place: Place, counter: Counter, now: datetime) -> float | None:
    """Units a second as of today; none: it cannot be told."""
    day = periods.bounds(Period.DAY, now, place.zone)
    begun = day[0] if day else now
    if place.meter in HELD:
        return forecast.pace(_used(session, place, Period.DAY, now), begun, now)
    if place.kind is Kind.SUBMISSIONS_PER_DAY:
        return forecast.pace(counter.used, begun, now)
    return None


def _used(session: Session, place: Place, period: Period, now: datetime) -> int:
    """What was charged at a place in a day or a month."""
    column: Any = Charge.micros if place.meter is Meter.COST else Charge.slot_ms
    day: Any = Charge.day if place.path else Charge.utc_day
    key = periods.key(period, now, place.zone)
    within = day == key if period is Period.DAY else day.between(f"{key}-01", f"{key}-31")
    query = select(func.coalesce(func.sum(column), 0)).where(within)
    return int(session.scalar(query.where(*tenants.below(Charge, place.path))) or 0)


def _spending(session: Session, book: QuotaBook, path: str, now: datetime) -> Spending:
    def said(kind: Kind, period: Period) -> Any:
        place = Place(path, kind, (), book.zone(path))
        return quotas.spoken(kind, _used(session, place, period, now))

    return Spending(
        day_cost=said(Kind.COST_DAILY, Period.DAY),
        month_cost=said(Kind.COST_MONTHLY, Period.MONTH),
        month_slot_hours=said(Kind.SLOT_HOURS_MONTHLY, Period.MONTH),
    )
