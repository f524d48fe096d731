"""Places of events in the one global order, given by the transaction that writes them."""

import sqlite3
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

RowOfEvent = dict[str, Any]
"""The columns of an outbox row."""

_COUNT = (
    "INSERT INTO event_order (id, last_position) VALUES (1, {count}) ON CONFLICT (id)"
    " DO UPDATE SET last_position = event_order.last_position + excluded.last_position"
    " RETURNING last_position"
)
_COUNT_LOCKED = text(_COUNT.format(count=":count"))
_COUNT_ALONE = _COUNT.format(count="?")


class Places(Protocol):
    """The counter of places.

    Whoever has counted holds it until its commit, so transactions that count become visible in
    that order, and an event can have its place from the beginning. Where many write at once they
    leave that to the relay, so that none waits for another's commit: ``services/outbox.py``.
    """

    def give(self, rows: Sequence[RowOfEvent]) -> None:
        """Give each of these events the next place; undone with the transaction or savepoint."""


class PlacesAlone:
    """For transactions that exclude all other writers."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def give(self, rows: Sequence[RowOfEvent]) -> None:
        """Give each of these events the next place."""
        ((last,),) = execute(self._raw, _COUNT_ALONE, (len(rows),)).fetchall()
        _number(rows, last)


class PlacesLocked:
    """For the last statements of a transaction beside others: they wait for its commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def give(self, rows: Sequence[RowOfEvent]) -> None:
        """Give each of these events the next place."""
        _number(rows, self._connection.execute(_COUNT_LOCKED, {"count": len(rows)}).scalar_one())


def _number(rows: Sequence[RowOfEvent], last: int) -> None:
    for place, row in enumerate(rows, start=last - len(rows) + 1):
        row["position"] = place


def execute(
    raw: sqlite3.Connection, statement: str, values: tuple[object, ...] = ()
) -> sqlite3.Cursor:
    """Run a statement below SQLAlchemy, with its errors."""
    try:
        return raw.execute(statement, values)
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error
