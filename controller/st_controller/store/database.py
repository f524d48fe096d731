"""Connections and transactions, on SQLite and PostgreSQL alike."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import OperationalError as DatabaseAwayError
from sqlalchemy.exc import SQLAlchemyError as DatabaseError
from sqlalchemy.orm import Session as ReadSession
from sqlalchemy.pool import ConnectionPoolEntry

from st_controller.store.group_commit import GroupCommit, UnitConnection
from st_controller.store.places import PlacesLocked, RowOfEvent
from st_controller.store.server_clock import ServerClock
from st_controller.store.transaction import Transaction
from st_shared.clock import Clock, utc_now

__all__ = ["Database", "DatabaseAwayError", "DatabaseError", "Notify", "ReadSession"]

Notify = Callable[[frozenset[str]], None]
"""Told, after a commit, which topics have news. Called from any thread."""
Deliver = Callable[[list[RowOfEvent]], None]
"""Given, after a commit, events that got their places in it. Called from any thread."""


IDLE_SECONDS = 10.0
"""PostgreSQL ends a session that has done nothing within a transaction for so long: its process is
frozen or gone, and what it has locked, such as the lease of the leader, keeps everybody waiting."""
LOCK_SECONDS = 30.0
"""The longest wait for a lock of somebody who is at work; then the statement fails."""
CONNECT_SECONDS = 10
"""The longest wait for a connection."""
QUIET_SECONDS = 5
"""Silence on a connection after which both ends probe whether the other is still there."""
PROBE_SECONDS = 2
"""Between two such probes."""
ASKED_AFTER_SECONDS = 5.0
"""A pooled connection that was not used for so long is asked whether it still stands. Asking each
time would cost every transaction a round trip; where one breaks all the same, the library drops all
that are older, and whoever had it is told to try again."""
_LAZY = {"synchronous_commit": "off"}
PROBES = 3
"""So many that are not answered end the connection."""


class Database:
    """Opens transactions. One object a process."""

    def __init__(self, url: str, *, clock: Clock | None = None, pool_size: int = 10) -> None:
        """Without a ``clock`` it goes by that of PostgreSQL, as all who use the database do."""
        servers = ServerClock() if clock is None else None
        self.engine = _open(url, pool_size, servers)
        self._lazy = self.engine if self.is_sqlite else _open(url, 1, servers, _LAZY)
        self.clock: Clock = clock or (utc_now if servers is None or self.is_sqlite else servers)
        self.notify: Notify = _nobody
        self.deliver: Deliver = _nowhere
        self._together = GroupCommit(self.engine, self._announce) if self.is_sqlite else None

    @property
    def engines(self) -> frozenset[Engine]:
        """All that have connections: that of most transactions, and that of those that are lazy."""
        return frozenset({self.engine, self._lazy})

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self, *, places_events: bool = False, lazily: bool = False) -> Iterator[Transaction]:
        """A transaction that changes something: committed at the end, undone by an exception.

        ``places_events`` is for the few who write often, one at a time: their events are told as
        soon as they are committed, and nobody else's get a place before that.

        ``lazily`` is for what means nothing until somebody acts on it with a write of his own:
        PostgreSQL does not wait for its disk, so a crash may undo it after others have seen it, but
        never what was built on it: see ``docs/decisions/0021``.
        """
        if self._together:
            with (
                self._together.unit() as group,
                ReadSession(group.connection, expire_on_commit=False) as session,
            ):
                transaction = Transaction(session, self.clock())
                yield transaction
                transaction.settle(group.places)
                session.commit()
                group.tell(transaction.topics, transaction.placed)
            return
        with self._session("BEGIN", self._lazy if lazily else self.engine) as session:
            transaction = Transaction(session, self.clock())
            yield transaction
            transaction.settle(PlacesLocked() if places_events else None)
            session.commit()
        self._announce(frozenset(transaction.topics), transaction.placed)

    @contextmanager
    def read(self) -> Iterator[ReadSession]:
        """A session that only reads one consistent state."""
        # PostgreSQL would show a newer state to each statement, SQLite cannot.
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._session("BEGIN", self.engine, **options) as session:
            yield session

    def close(self) -> None:
        """Close all connections; those that somebody has, or still takes, once they come back."""
        for engine in self.engines:
            event.listen(engine, "checkin", _close_returned)
            engine.dispose()

    def _announce(self, topics: frozenset[str], events: list[RowOfEvent]) -> None:
        if events:
            self.deliver(events)
        if topics:
            self.notify(topics)

    @contextmanager
    def _session(self, begin: str, engine: Engine, **options: Any) -> Iterator[ReadSession]:
        connection = engine.connect().execution_options(st_begin=begin, **options)
        with connection, ReadSession(connection, expire_on_commit=False) as session:
            yield session


def _nobody(_topics: frozenset[str]) -> None:
    """Stands in until somebody wants to be told."""


def _nowhere(_events: list[RowOfEvent]) -> None:
    """Stands in until somebody keeps events in memory."""


def _open(
    url: str, pool_size: int, clock: ServerClock | None, on_the_server: Mapping[str, str] = {}
) -> Engine:
    # Errors end in the log, and the values of a statement are hashes of passwords, too.
    if not url.startswith("sqlite"):
        engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            connect_args=_bounds(make_url(url), on_the_server),
        )
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", _asks_if_idle(engine, clock))
        return engine
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size * 4,
        hide_parameters=True,
        connect_args={"factory": UnitConnection},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used"] = monotonic()


def _close_returned(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.invalidate()


def _asks_if_idle(
    engine: Engine, clock: ServerClock | None
) -> Callable[[Any, ConnectionPoolEntry, object], None]:
    """Asks a connection that rested for long whether it still stands; if not, another is made.

    Some are asked what time it is.
    """

    def ask(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        used = record.info.get("used")
        try:
            if used is not None and monotonic() - used >= ASKED_AFTER_SECONDS:
                engine.dialect.do_ping(connection)
            if clock is not None:
                clock.ask(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("it broke while nobody used it") from error

    return ask


def _bounds(url: URL, more: Mapping[str, str]) -> dict[str, Any]:
    """What keeps a process that is frozen or gone from holding up the others for long."""
    on_the_server = {
        **more,
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS * 1000:.0f}",
        "lock_timeout": f"{LOCK_SECONDS * 1000:.0f}",
        "tcp_keepalives_idle": f"{QUIET_SECONDS}",
        "tcp_keepalives_interval": f"{PROBE_SECONDS}",
        "tcp_keepalives_count": f"{PROBES}",
    }
    ours = [f"-c {name}={value}" for name, value in on_the_server.items()]
    theirs = url.query.get("options", ())  # the later ones win
    return {
        "options": " ".join([*ours, *([theirs] if isinstance(theirs, str) else theirs)]),
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": QUIET_SECONDS,
        "keepalives_interval": PROBE_SECONDS,
        "keepalives_count": PROBES,
        "tcp_user_timeout": 1000 * (QUIET_SECONDS + PROBE_SECONDS * PROBES),
    }


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, too late and always deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "busy_timeout = 15000",
        "temp_store = MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("st_begin", "BEGIN"))
