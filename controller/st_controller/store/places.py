"""Places of events in the one global order, given by a writer that has the database for itself."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import OperationalError

RowOfEvent = dict[str, Any]
"""The columns of an outbox row."""


class Places:
    """The counter of places, for transactions that exclude all other writers.

    Such transactions become visible in the order in which they count, so an event can have its
    place from the beginning; see ``services/outbox.py`` for databases where that is not so.
    """

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def give(self, rows: Sequence[RowOfEvent]) -> None:
        """Give each of these events the next place; undone with the transaction or savepoint."""
        cursor = execute(
            self._raw,
            "INSERT INTO event_order (id, last_position) VALUES (1, ?) ON CONFLICT (id)"
            " DO UPDATE SET last_position = last_position + excluded.last_position"
            " RETURNING last_position",
            (len(rows),),
        )
        ((last,),) = cursor.fetchall()
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
