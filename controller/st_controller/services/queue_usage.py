"""What tenants have used: of attempts that are over in a sum, of all others in their own rows.

Both are read from the database alone, and never from what a scheduler believed: whoever leads next
finds what was really used, however the last one ended and whatever it had not noticed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import exp, log
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, text, tuple_, update
from sqlalchemy.orm import Session

from st_controller.domain import use
from st_controller.store.schema import Attempt, Job, TenantUsage, User
from st_controller.store.transaction import Transaction

MOST = 1000
"""Attempts that are counted in one transaction."""

NEGLIGIBLE = 1e-6
"""Slot-seconds of which nothing is kept."""

Span = tuple[datetime, datetime]
_UNCOUNTED = text("NOT attempts.counted")  # as its index says it
_GANG = tuple_(Attempt.job_id, Attempt.number)


class _Had(NamedTuple):
    """Members of one attempt that had slots."""

    tenant: tuple[str, ...]
    """The paths that it is charged to."""
    rate: float
    """Price of all its slots for one second."""
    span: Span


def count(tx: Transaction, half_life: float, forfeited: Mapping[str, float]) -> bool:
    """Add attempts that are over to the sums, with what was forfeited; whether there may be more.

    It happens in one transaction, so each is counted once. Only a leader does it.
    """
    ended = (
        select(Attempt.job_id, Attempt.number)
        .where(_UNCOUNTED, Attempt.released_at.is_not(None), Attempt.node == 0)
        .limit(MOST)
    )
    locked = _rows().where(_GANG.in_(ended)).order_by(Attempt.job_id, Attempt.id)
    rows = tx.session.execute(locked.with_for_update(of=Attempt)).all()
    decay = log(2) / half_life
    used = _saved(tx.session, decay, tx.now)
    for had in _spans(rows, tx.now):
        _add(used, had, decay, tx.now)
    ids = [row.id for row in rows]
    if ids:
        tx.session.execute(update(Attempt).where(Attempt.id.in_(ids)).values(counted=True))
    tx.session.execute(delete(TenantUsage))
    both = [
        (path, used.get(path, (0.0, 0.0))[0], forfeited.get(path, 0.0))
        for path in sorted(used.keys() | forfeited.keys())
    ]
    told = [
        {"path": path, "usage": had, "forfeited": lapsed, "as_of": tx.now}
        for path, had, lapsed in both
        if max(had, abs(lapsed)) > NEGLIGIBLE
    ]
    if told:
        tx.session.execute(insert(TenantUsage), told)
    return len({(row.job_id, row.number) for row in rows}) == MOST


def read(session: Session, half_life: float, now: datetime) -> dict[str, tuple[float, float]]:
    """Usage and forfeited share of every node at ``now``."""
    decay = log(2) / half_life
    found = _saved(session, decay, now)
    rows = session.execute(_rows().where(_UNCOUNTED)).all()
    for had in _spans(rows, now):
        _add(found, had, decay, now)
    return found


def _rows() -> Any:
    return (
        select(
            Attempt.id,
            Attempt.job_id,
            Attempt.number,
            Attempt.nodes,
            Attempt.slots,
            Attempt.price,
            Attempt.offered_at,
            Attempt.claimed_at,
            Attempt.used_seconds,
            Attempt.released_at,
            Job.org,
            Job.team,
            User.username,
        )
        .join(Job, Job.id == Attempt.job_id)
        .join(User, User.id == Job.submitted_by)
    )


def _saved(session: Session, decay: float, now: datetime) -> dict[str, tuple[float, float]]:
    """What was summed up, decayed since."""
    found = {}
    for row in session.scalars(select(TenantUsage)):
        factor = exp(-decay * max(0.0, (now - row.as_of).total_seconds()))
        found[row.path] = (row.usage * factor, row.forfeited * factor)
    return found


def _spans(rows: Iterable[Any], now: datetime) -> Iterator[_Had]:
    attempts: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for row in rows:
        attempts[row.job_id, row.number].append(row)
    for members in attempts.values():
        if (span := _span(members, now)) is not None:
            first = members[0]
            team = f"{first.org}/{first.team}"
            rate = sum(len(each.slots) * each.price for each in members)
            yield _Had(("", first.org, team, f"{team}/{first.username}"), rate, span)


def _span(members: Sequence[Any], now: datetime) -> Span | None:
    """From when until when: of what still holds its slots, from its offer until now.

    A scheduler that takes it over charges it like that, and corrects it once it is over.
    """
    if members[0].released_at is None:
        return members[0].offered_at, now
    return use.span(members, members[0])


def _add(found: dict[str, tuple[float, float]], had: _Had, decay: float, now: datetime) -> None:
    charge = had.rate * _grown(*had.span, decay, now)
    for path in had.tenant:
        used, forfeited = found.get(path, (0.0, 0.0))
        found[path] = (used + charge, forfeited)


def _grown(begun: datetime, ended: datetime, decay: float, now: datetime) -> float:
    """What one slot-second a second between two moments has decayed to."""
    older = (now - begun).total_seconds()
    newer = max(0.0, (now - ended).total_seconds())
    return (exp(-decay * newer) - exp(-decay * older)) / decay if older > newer else 0.0
