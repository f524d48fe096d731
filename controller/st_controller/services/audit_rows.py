"""Audit entries as the chain sees them, also where somebody put nonsense into a row."""

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Executable, Text, cast, select
from sqlalchemy.orm import Session

from st_controller.domain.audit import Entry
from st_controller.store.moments import Microseconds
from st_controller.store.schema import AuditEntry

PAGE = 2000
_COLUMNS = (
    AuditEntry.place,
    AuditEntry.seq,
    # As numbers and text: what somebody put there may be no moment, and no JSON.
    Microseconds(AuditEntry.at).label("at"),
    AuditEntry.actor,
    AuditEntry.action,
    AuditEntry.target,
    cast(AuditEntry.details, Text).label("details"),
    AuditEntry.code,
)


def chained(session: Session, after: int, last: int | None = None) -> Iterator[Entry]:
    """Entries that have a place after ``after``, in that order; up to ``last``."""
    while True:
        query = select(*_COLUMNS).where(AuditEntry.place > after).order_by(AuditEntry.place)
        if last is not None:
            query = query.where(AuditEntry.place <= last)
        rows = session.execute(query.limit(PAGE)).all()
        for row in rows:
            yield entry_of(row, row.place)
        if len(rows) < PAGE:
            return
        after = rows[-1].place


def unchained(limit: int) -> Executable:
    """Entries that have no place, in the order of their numbers."""
    query = select(*_COLUMNS).where(AuditEntry.place.is_(None))
    return query.order_by(AuditEntry.seq).limit(limit)


def entry_of(row: Any, place: int) -> Entry:
    """The entry of such a row."""
    return Entry(
        place, row.seq, row.at, row.actor, row.action, row.target, _json(row.details), row.code
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return {"no JSON": repr(text)}
