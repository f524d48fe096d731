"""Places of events in the one global order, given by a writer that has the database for itself."""

import sqlite3
from typing import Any

from sqlalchemy.exc import OperationalError

RowOfEvent = dict[str, Any]
"""The columns of an outbox row."""


class Places:
    """The counter of places within one transaction that excludes all other writers.

    Such transactions become visible in the order in which they count, so an event can have its
    place from the beginning; see ``services/outbox.py`` for databases where that is not so.
    """

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self._last: int | None = None
        self._changed = False

    def give(self, rows: list[RowOfEvent]) -> None:
        """Give each of these events the next place."""
        if self._last is None:
            found = execute(self._raw, "SELECT last_position FROM event_order").fetchone()
            self._last = found[0] if found else 0
        for row in rows:
            self._last += 1
            row["position"] = self._last
        self._changed = True

    def take_back(self, count: int) -> None:
        """The newest ``count`` events were not written after all."""
        assert self._last is not None  # noqa: S101 - they were given before
        self._last -= count

    def save(self) -> None:
        """Keep the counter; before the commit."""
        if self._changed:
            execute(
                self._raw,
                "INSERT INTO event_order (id, last_position) VALUES (1, ?)"
                " ON CONFLICT (id) DO UPDATE SET last_position = excluded.last_position",
                (self._last,),
            )


def execute(
    raw: sqlite3.Connection, statement: str, values: tuple[object, ...] = ()
) -> sqlite3.Cursor:
    """Run a statement below SQLAlchemy, with its errors."""
    try:
        return raw.execute(statement, values)
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error
