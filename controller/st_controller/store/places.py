"""Places of events in the one global order, given by the transaction that writes them."""

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from sqlalchemy import Connection, insert
from sqlalchemy.exc import OperationalError

from st_controller.store.bulk import Rows, document, insert_document, insert_together
from st_controller.store.schema import AuditEntry, OutboxEvent

RowOfEvent = dict[str, Any]
"""The columns of an outbox row."""

AUDIT, EVENTS = insert(AuditEntry), insert(OutboxEvent)
SKIPPED = 1_000_000
"""Places that are left out after a crash of PostgreSQL: more than can have been given, told, and
lost with what was not on the disk yet (0.6 s at most). A place that came twice would be passed over
by whoever has seen the first."""
_COUNT = (
    "INSERT INTO event_order (id, last_position) VALUES (1, {count}) ON CONFLICT (id)"
    " DO UPDATE SET last_position = event_order.last_position + excluded.last_position{more}"
    " RETURNING last_position"
)
_COUNT_ALONE = _COUNT.format(count="?", more="")
_IS_MARKED = "EXISTS (SELECT 1 FROM crash_marks WHERE name = 'places')"
_COUNT_LOCKED = _COUNT.format(
    count="%s", more=f" + CASE WHEN {_IS_MARKED} THEN 0 ELSE {SKIPPED} END"
)
_MARK = (
    "INSERT INTO crash_marks (name, value)"
    f" SELECT 'places', 1 WHERE NOT {_IS_MARKED} ON CONFLICT DO NOTHING"
)
_TELL = (
    "INSERT INTO outbox (topic, kind, body, created_at, position)"
    ' SELECT topic, kind, body, created_at, last_position - %s + "position"'
    ' FROM counted, json_populate_recordset(null::outbox, %s) ORDER BY "position"'
)


class Places(Protocol):
    """The counter of places.

    Whoever has counted holds it until its commit, so transactions that count become visible in
    that order, and an event can have its place from the beginning. Where many write at once they
    leave that to the relay, so that none waits for another's commit: ``services/outbox.py``.
    """

    def write(self, connection: Connection, entries: Rows, events: Sequence[RowOfEvent]) -> None:
        """Insert audit entries and events, each of which is given the next place.

        Undone with the transaction or savepoint.
        """


class PlacesAlone:
    """For transactions that exclude all other writers."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def write(self, connection: Connection, entries: Rows, events: Sequence[RowOfEvent]) -> None:
        """Insert both; the events with the next places."""
        if events:
            ((last,),) = execute(self._raw, _COUNT_ALONE, (len(events),)).fetchall()
            _number(events, last - len(events))
        insert_together(connection, (AUDIT, entries), (EVENTS, events))


class PlacesLocked:
    """For the last statement of a transaction beside others: they wait for its commit."""

    def write(self, connection: Connection, entries: Rows, events: Sequence[RowOfEvent]) -> None:
        """Insert both; the events with the next places."""
        if not events:
            insert_together(connection, (AUDIT, entries))
            return
        _number(events, 0)
        sql = _counting(tuple(entries[0]) if entries else None)
        given: list[Any] = [len(events), len(events), document(events)]
        if entries:
            given.append(document(entries))
        last = connection.exec_driver_sql(sql, tuple(given)).scalar_one()
        _number(events, last - len(events))


@cache
def _counting(entry: tuple[str, ...] | None) -> str:
    """PostgreSQL's statement for events, and for audit entries with these columns, if any."""
    parts = [f"counted AS ({_COUNT_LOCKED})", f"told AS ({_TELL})", f"marked AS ({_MARK})"]
    if entry is not None:
        parts.append(f"noted AS ({insert_document(AUDIT, entry)})")
    return f"WITH {', '.join(parts)} SELECT last_position FROM counted"  # noqa: S608 - ours alone


def after_crash(connection: Connection) -> int:
    """Places to leave out now, for whoever has locked the counter, and the mark made anew."""
    if connection.dialect.name == "sqlite":
        return 0
    return SKIPPED if connection.exec_driver_sql(_MARK).rowcount else 0


def _number(events: Sequence[RowOfEvent], before: int) -> None:
    for place, event in enumerate(events, start=before + 1):
        event["position"] = place


def execute(
    raw: sqlite3.Connection, statement: str, values: tuple[object, ...] = ()
) -> sqlite3.Cursor:
    """Run a statement below SQLAlchemy, with its errors."""
    try:
        return raw.execute(statement, values)
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error
