"""Counters of quotas: each changed by one conditional update, all in one order."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from st_controller.domain.policy import quotas
from st_controller.domain.policy.quotas import Counter, Place
from st_controller.errors import QuotaExceeded
from st_controller.store.compiled import Compiled
from st_controller.store.transaction import Transaction

NO_LIMIT = 2**62

_USED = (
    "CASE WHEN period = :period THEN used + :used WHEN period < :period THEN :used ELSE used END"
)
_CHANGE = Compiled(
    text(
        "UPDATE quota_counters SET"  # noqa: S608 - nothing of it comes from outside
        f" used = {_USED}, held = held + :held,"
        " period = CASE WHEN period < :period THEN :period ELSE period END"
        " WHERE path = :path AND kind = :kind"
        f" AND {_USED} + held + :held <= :most"
        " RETURNING used, held"
    )
)
"""A new period begins with what is added here; what is added to one that is over is left out."""
_READ = "SELECT period, used, held FROM quota_counters WHERE path = :path AND kind = :kind"
_READ_ONLY = text(_READ)
_LOCK = text(f"{_READ} FOR UPDATE")


class Change(NamedTuple):
    """What is added to a counter."""

    used: int = 0
    held: int = 0


def take(tx: Transaction, place: Place, change: Change, *, capped: bool) -> Counter | None:
    """Add to a counter, of which ``capped`` means: not beyond the ceiling.

    None: there is no such counter any more, because its quota was removed just now.

    Raises:
        QuotaExceeded: the ceiling does not allow it; what was added before is undone with the rest.
    """
    ceiling = place.ceiling if capped else None
    values = {
        "path": place.path,
        "kind": place.kind.value,
        "period": place.period(tx.now),
        "used": change.used,
        "held": change.held,
        "most": ceiling.amount if ceiling else NO_LIMIT,
    }
    row = _CHANGE.run(tx.session.connection(), values).one_or_none()
    if row is not None:
        return Counter(row.used, row.held)
    known = look(tx.session, place, tx.now)
    if known is None:
        return None
    raise refusal(place, known, change.used + change.held, tx.now)


def refusal(place: Place, counter: Counter, asked: int, now: datetime) -> QuotaExceeded:
    """What is raised where a ceiling does not allow what is asked for."""
    why = quotas.refused(place, counter, asked, now)
    return QuotaExceeded(why.message, hint=why.hint)


def add(tx: Transaction, place: Place, used: Mapping[str, int], held: int) -> None:
    """Add what was used, by period, and what is held; no ceiling is asked."""
    for period, amount in sorted(used.items()) or [(place.period(tx.now), 0)]:
        values = {
            "path": place.path,
            "kind": place.kind.value,
            "period": period,
            "used": amount,
            "held": held,
            "most": NO_LIMIT,
        }
        _CHANGE.run(tx.session.connection(), values)
        held = 0


def look(session: Session, place: Place, now: datetime, *, lock: bool = False) -> Counter | None:
    """A counter in its present period; none: there is none."""
    query = _LOCK if lock and session.get_bind().dialect.name == "postgresql" else _READ_ONLY
    found = session.connection().execute(query, {"path": place.path, "kind": place.kind.value})
    return _now(place, found.one_or_none(), now)


def lock_all(tx: Transaction, places: Iterable[Place]) -> dict[Place, Counter]:
    """Lock counters, in the order of everybody, and read them."""
    found = {}
    for place in quotas.in_order(set(places)):
        counter = look(tx.session, place, tx.now, lock=True)
        if counter is not None:
            found[place] = counter
    return found


def _now(place: Place, row: Any, now: datetime) -> Counter | None:
    if row is None:
        return None
    return Counter(row.used if row.period >= place.period(now) else 0, row.held)
