"""Counting anew: what stands in a counter, from the jobs and charges that it is the sum of."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, select, text, update
from sqlalchemy.orm import Session

from st_controller.domain.policy import periods
from st_controller.domain.policy.estimates import Asked
from st_controller.domain.policy.periods import Period
from st_controller.domain.policy.quotas import HELD, RULES, RUNNING, Counter, Kind, Meter, Place
from st_controller.services.policy import counters, spans, tenants
from st_controller.services.policy.quota_book import Payer, QuotaBook
from st_controller.store.schema import (
    Artifact,
    Attempt,
    Charge,
    Dataset,
    Job,
    QuotaCounter,
    QuotaRow,
    User,
)
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import JobState

_PAGE = 500
_OVER = [state for state in JobState if state.is_final]
_NEW = text(
    "INSERT INTO quota_counters (path, kind, period, used, held, made_at)"
    " VALUES (:path, :kind, '', 0, 0, :made_at) ON CONFLICT (path, kind) DO NOTHING"
).bindparams(bindparam("made_at", type_=QuotaCounter.__table__.c.made_at.type))
_HOLD = text(
    "UPDATE jobs SET held_micros = :micros, held_slot_ms = :slot_ms"
    " WHERE id = :id AND held_micros IS NULL AND finished_at IS NULL"
)


def look(session: Session, place: Place, now: datetime) -> Counter:
    """What a counter says, or would if it were there."""
    known = counters.look(session, place, now)
    if known is None and place.comes_with_role:
        return count(session, place, now)
    return known or Counter(0)


def make(tx: Transaction, book: QuotaBook, place: Place) -> None:
    """Make the counter of a user's place that stands because of a role, if it is not there yet."""
    is_late = place.comes_with_role and place.meter not in RUNNING
    if is_late and counters.look(tx.session, place, tx.now) is None:
        take(tx, book, place)


def take(tx: Transaction, book: QuotaBook, place: Place) -> Counter:
    """Write down what a counter should say; it is there from now on, and locked.

    Jobs that nothing was held for until now, because no quota counted them, are given a hold. Those
    that are submitted at this very moment, by whoever does not know of the quota yet, are found
    when this is done again.
    """
    if place.meter in RUNNING:
        return Counter(0)
    if place.meter in HELD:
        _hold(tx, book, place.path)
    key = {"path": place.path, "kind": place.kind.value}
    tx.session.connection().execute(_NEW, {**key, "made_at": tx.now})
    counters.look(tx.session, place, tx.now, lock=True)
    found = count(tx.session, place, tx.now)
    tx.session.execute(
        update(QuotaCounter)
        .where(QuotaCounter.path == place.path, QuotaCounter.kind == place.kind.value)
        .values(period=place.period(tx.now), used=found.used, held=found.held)
    )
    return found


def due(session: Session, since: datetime, *, storage: bool) -> list[tuple[str, Kind]]:
    """Counters that were made after a moment, and those of what is stored."""
    wanted = QuotaCounter.made_at >= since
    if storage:
        wanted |= QuotaCounter.kind == Kind.STORAGE_BYTES
    rows = session.execute(select(QuotaCounter.path, QuotaCounter.kind).where(wanted))
    return sorted((path, Kind(kind)) for path, kind in rows)


def lacking(session: Session, book: QuotaBook) -> list[Place]:
    """Places of roles whose counters are not there yet, of users whose jobs run now."""
    if not book.of_roles:
        return []
    runs = Job.state.in_((JobState.ASSIGNED, JobState.RUNNING))
    payers = session.execute(select(Job.org, Job.team, Job.submitted_by).where(runs).distinct())
    return [
        place
        for payer in sorted(Payer(*row) for row in payers)
        for place in book.chain(session, payer)
        if place.comes_with_role
        and place.meter in HELD
        and session.get(QuotaCounter, (place.path, place.kind)) is None
    ]


def take_again(tx: Transaction, book: QuotaBook, path: str, kind: Kind) -> None:
    """Count anew at one place, if a quota still stands there."""
    for place in book.places_at(tx.session, path):
        if place.kind is kind:
            take(tx, book, place)


def forget(tx: Transaction, below: str, kind: Kind | None = None, username: str = "") -> None:
    """Remove counters of users below a node that stand only because of their role.

    Whoever needs one makes it anew.
    """
    counter = QuotaCounter
    own = select(QuotaRow.id).where(
        QuotaRow.path == counter.path, QuotaRow.kind == counter.kind, QuotaRow.role == ""
    )
    wanted = [counter.path.like("%/%/%"), ~own.exists()]
    if below:
        wanted.append(counter.path.startswith(f"{below}/", autoescape=True))
    if kind is not None:
        wanted.append(counter.kind == kind)
    if username:
        wanted.append(counter.path.endswith(f"/{username}", autoescape=True))
    query = delete(counter).where(*wanted).execution_options(synchronize_session=False)
    tx.session.execute(query)


def count(session: Session, place: Place, now: datetime) -> Counter:
    """What a counter should say, of everything there is."""
    if place.meter is Meter.SUBMISSIONS:
        return Counter(_submissions(session, place, now))
    if place.meter is Meter.STORAGE:
        return Counter(_stored(session, place.path))
    return Counter(
        _charged(session, place, now) + _unbooked(session, place, now),
        _held(session, place),
    )


def _submissions(session: Session, place: Place, now: datetime) -> int:
    span = periods.bounds(RULES[place.kind].period, now, place.zone)
    begun = span[0] if span else now
    query = select(func.count()).select_from(Job).where(Job.submitted_at >= begun)
    return session.scalar(query.where(*tenants.below(Job, place.path))) or 0


def _stored(session: Session, path: str) -> int:
    """Bytes of what is stored; equal content counts once."""
    return _artifacts(session, path) + _datasets(session, path)


def _artifacts(session: Session, path: str) -> int:
    each = (
        select(func.max(Artifact.size).label("size"))
        .join(Job, Job.id == Artifact.job_id)
        .where(Artifact.stored_at.is_not(None), *tenants.below(Job, path))
        .group_by(Artifact.key)
        .subquery()
    )
    return int(session.scalar(select(func.coalesce(func.sum(each.c.size), 0))) or 0)


def _datasets(session: Session, path: str) -> int:
    """Those of an organisation; below it, of whose who registered them are at home there."""
    org, team, user, *_ = [*path.split("/"), "", "", ""]
    query = select(Dataset.archives).where(Dataset.stored_at.is_not(None))
    if org:
        query = query.where(Dataset.org == org)
    if team:
        query = query.join(User, User.id == Dataset.created_by)
        query = query.where(User.org == org, User.team == team)
    if user:
        query = query.where(User.username == user)
    sizes = {
        archive["key"]: int(archive["size"])
        for archives in session.scalars(query.execution_options(yield_per=_PAGE))
        for archive in archives
    }
    return sum(sizes.values())


def _charged(session: Session, place: Place, now: datetime) -> int:
    column: Any = Charge.micros if place.meter is Meter.COST else Charge.slot_ms
    day: Any = Charge.day if place.path else Charge.utc_day
    key = place.period(now)
    within = day.between(f"{key}-01", f"{key}-31") if _is_month(place) else day == key
    query = select(func.coalesce(func.sum(column), 0)).where(within)
    return int(session.scalar(query.where(*tenants.below(Charge, place.path))) or 0)


def _unbooked(session: Session, place: Place, now: datetime) -> int:
    """What attempts that are over have used and the leader has not written down yet."""
    rows = session.execute(
        select(Job, Attempt)
        .join(Job, Job.id == Attempt.job_id)
        .where(
            text("NOT attempts.booked"),
            Attempt.released_at.is_not(None),
            *tenants.below(Job, place.path),
        )
    ).all()
    total, key = 0, place.period(now)
    for job_id in {job.id for job, _ in rows}:
        attempts = [attempt for job, attempt in rows if job.id == job_id]
        used = spans.used_since(attempts, place.zone)
        total += sum(
            each.amounts.of(place.meter) for each in used if place.period(each.since) == key
        )
    return total


def _held(session: Session, place: Place) -> int:
    column = Job.held_micros if place.meter is Meter.COST else Job.held_slot_ms
    query = select(func.coalesce(func.sum(column), 0)).where(Job.state.not_in(_OVER))
    return int(session.scalar(query.where(*tenants.below(Job, place.path))) or 0)


def _is_month(place: Place) -> bool:
    return RULES[place.kind].period is Period.MONTH


def _hold(tx: Transaction, book: QuotaBook, path: str) -> None:
    """Hold what they will use for jobs that are not over and nothing was held for until now."""
    after = ""
    while True:
        rows = tx.session.execute(
            select(
                Job.id,
                Job.request,
                Job.slots,
                Job.expected_seconds,
                Job.submitted_by,
                Job.name,
                Job.family,
            )
            .where(Job.state.not_in(_OVER), Job.held_micros.is_(None), Job.id > after)
            .where(*tenants.below(Job, path))
            .order_by(Job.id)
            .limit(_PAGE)
        ).all()
        if not rows:
            return
        values = []
        for row in rows:
            request = json.loads(row.request)
            asked = Asked(
                row.slots,
                _asked_for(request["accelerator"]),
                _asked_for(request["provider"]),
                request["limit"],
                row.expected_seconds,
            )
            of_job = (row.submitted_by, row.name, row.family)
            amounts = book.estimate(tx.session, asked, of_job, tx.now)
            amounts = book.hold(asked, amounts, tx.now)
            values.append({"id": row.id, "micros": amounts.micros, "slot_ms": amounts.slot_ms})
        tx.session.connection().execute(_HOLD, values)
        after = rows[-1].id


def _asked_for(globs: str) -> str:
    """The globs of the job file, without what rules keep it from."""
    return globs.partition("&")[0]
