"""Processes that die between any two writes to the database, before a commit, or right after it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from st_controller.store import group_commit, places
from st_controller.store.database import Database

READS = ("SELECT", "PRAGMA", "SAVEPOINT", "BEGIN")


class Killed(BaseException):
    """The process is gone: nothing of it runs on, and what it had not committed is undone."""


class Death:
    """Counts the writes of one process at a time, and ends it at one of them.

    Counted are all statements that write, below SQLAlchemy or through it, and each commit twice:
    death comes just before it, when all is lost, or just after it, when nobody has been told.
    """

    def __init__(self, db: Database) -> None:
        self.left: int | None = None
        """Writes until death; none: it does not come."""
        self.deaths = 0
        event.listen(db.engine, "before_cursor_execute", self._before_statement)

    @contextmanager
    def after(self, writes: int | None) -> Iterator[None]:
        """Death comes within the block, if it writes more often than that."""
        self.left = writes
        try:
            with _below_the_library(self):
                yield
        finally:
            self.left = None

    def count(self) -> None:
        """One more write is about to happen.

        Raises:
            Killed: that one does not happen any more.
        """
        if self.left is None:
            return
        if self.left == 0:
            self.left = None  # what unwinds now is what the system does for a process that is gone
            self.deaths += 1
            raise Killed
        self.left -= 1

    def _before_statement(
        self, _connection: Any, _cursor: Any, statement: str, *_rest: Any
    ) -> None:
        if not statement.lstrip().upper().startswith(READS):
            self.count()


@contextmanager
def _below_the_library(death: Death) -> Iterator[None]:
    """Count, too, what the store says to SQLite by itself."""
    plain = places.execute

    def counted(
        raw: sqlite3.Connection, statement: str, values: tuple[object, ...] = ()
    ) -> sqlite3.Cursor:
        if statement.startswith(READS):
            return plain(raw, statement, values)
        death.count()
        cursor = plain(raw, statement, values)
        if statement == "COMMIT":
            death.count()
        return cursor

    places.execute = group_commit.execute = counted
    try:
        yield
    finally:
        places.execute = group_commit.execute = plain
