"""Lets writers of SQLite that come at the same time share one transaction, and one flush to disk.

SQLite has one writer, and what a commit costs is mostly the disk. Writers stand in line; each does
its work alone, inside a savepoint of its own, so what it changes is undone without harm to the
others. Whoever finds nobody behind it commits for all. No writer is told that it has committed
before that.
"""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from st_controller.store.places import PlacesAlone, RowOfEvent, execute

MOST = 64
"""Writers that share a transaction."""
LONGEST_SECONDS = 0.01
"""How long a transaction is kept open for further writers."""

Announce = Callable[[frozenset[str], list[RowOfEvent]], None]
"""Told, after a commit and in the order of commits, topics that have news, and new events."""


class NotCommittedError(SQLAlchemyError):
    """The shared transaction was lost, and with it what this writer had done."""


class UnitConnection(sqlite3.Connection):
    """A connection of which the commit can be that of a savepoint within a transaction."""

    in_unit = False
    """Whether ``commit`` and ``rollback`` mean the savepoint."""

    def commit(self) -> None:
        """Keep the changes: for good, or as far as the transaction around them is."""
        if self.in_unit:
            self.execute("RELEASE unit")
        else:
            super().commit()

    def rollback(self) -> None:
        """Undo the changes."""
        if not self.in_unit:
            super().rollback()
        elif self.in_transaction:  # a full disk, say, undoes the whole by itself
            self.execute("ROLLBACK TO unit")
            self.execute("RELEASE unit")


class _Turn:
    """A writer's place in the line; its gate opens for the turn, then for the commit."""

    __slots__ = ("gate",)

    def __init__(self) -> None:
        self.gate = Lock()
        self.gate.acquire()


@dataclass
class Group:
    """A transaction that writers share."""

    connection: Connection
    raw: UnitConnection
    places: PlacesAlone
    begun: float
    members: list[_Turn] = field(default_factory=list)
    """Those who have done their work and wait for the commit."""
    topics: set[str] = field(default_factory=set)
    events: list[RowOfEvent] = field(default_factory=list)
    error: BaseException | None = None

    def tell(self, topics: Iterable[str], events: Iterable[RowOfEvent]) -> None:
        """Have this announced after the commit."""
        self.topics |= set(topics)
        self.events += events

    @property
    def takes_more(self) -> bool:
        """Whether another writer may join."""
        young = time.monotonic() - self.begun < LONGEST_SECONDS
        return self.error is None and young and len(self.members) < MOST


class GroupCommit:
    """The line of writers; one object a database and process."""

    def __init__(self, engine: Engine, announce: Announce) -> None:
        self._engine, self._announce = engine, announce
        self._mutex = Lock()
        self._line: deque[_Turn] = deque()
        self._busy = False
        self._group: Group | None = None
        """Only whoever has the turn looks at it."""

    @contextmanager
    def unit(self) -> Iterator[Group]:
        """A writer's turn; returns once what it did is on the disk.

        Raises:
            NotCommittedError: the commit failed.
        """
        turn = self._wait_for_turn()
        try:
            group = self._group or self._begin()
        except BaseException:
            self._pass_on()
            raise
        done = False
        try:
            yield group
            done = True
        finally:
            self._leave(group, turn if done else None)

    def _wait_for_turn(self) -> _Turn:
        turn = _Turn()
        with self._mutex:
            waits = self._busy
            self._busy = True
            if waits:
                self._line.append(turn)
        if waits:
            turn.gate.acquire()
        return turn

    def _begin(self) -> Group:
        connection = self._engine.connect().execution_options(st_begin="SAVEPOINT unit")
        try:
            raw = connection.connection.driver_connection
            assert isinstance(raw, UnitConnection)  # noqa: S101 - the engine makes no others
            execute(raw, "BEGIN IMMEDIATE")
        except BaseException:
            connection.close()
            raise
        raw.in_unit = True
        self._group = Group(connection, raw, PlacesAlone(raw), time.monotonic())
        return self._group

    def _leave(self, group: Group, turn: _Turn | None) -> None:
        """End a turn; ``turn`` is none where the work was undone."""
        if turn:
            group.members.append(turn)
        if _is_lost(group.raw):
            group.error = NotCommittedError("the database has undone the transaction")
        following = None
        if group.takes_more:
            with self._mutex:
                following = self._line.popleft() if self._line else None
        if following:
            following.gate.release()
            if turn is None:
                return
            turn.gate.acquire()
        else:
            self._end(group, turn)
        if turn and group.error:
            raise NotCommittedError("the change could not be committed") from group.error

    def _end(self, group: Group, own: _Turn | None) -> None:
        """Commit for all, announce, and let the next group begin."""
        self._group = None
        try:
            self._commit(group)
        finally:
            self._pass_on()
            for member in group.members:
                if member is not own:
                    member.gate.release()

    def _commit(self, group: Group) -> None:
        group.raw.in_unit = False
        try:
            if group.members and group.error is None:
                execute(group.raw, "COMMIT")
                self._announce(frozenset(group.topics), group.events)
        except SQLAlchemyError as error:
            group.error = error
        finally:
            group.connection.close()  # undoes what was not committed

    def _pass_on(self) -> None:
        with self._mutex:
            following = self._line.popleft() if self._line else None
            self._busy = following is not None
        if following:
            following.gate.release()


def _is_lost(raw: UnitConnection) -> bool:
    """Whether the transaction is over: undone by the database, or with the connection closed.

    The library closes it where a thread is ended in the midst of a statement.
    """
    try:
        return not raw.in_transaction
    except sqlite3.ProgrammingError:
        return True
