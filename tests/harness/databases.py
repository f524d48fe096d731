"""Databases on PostgreSQL, migrated and as good as new.

To make one and to drop it costs the server a quarter of a second, to empty one some milliseconds.
So what a test gives back is emptied for the next one, if it has the schema that it had and nobody
is connected to it any more; else it is dropped.
"""

from contextlib import suppress
from uuid import uuid4

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

_LOOKS = 200
"""How often it is looked for connections that are about to end, each time for 5 ms."""
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_SCHEMA = """SELECT md5(concat(
    (SELECT string_agg(concat_ws(' ', attrelid, attname, atttypid, attnotnull), ','
        ORDER BY attrelid, attnum) FROM pg_attribute WHERE attrelid >= 16384),
    (SELECT string_agg(concat_ws(' ', oid, relname, relkind, reloptions), ',' ORDER BY oid)
        FROM pg_class WHERE oid >= 16384),
    (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_constraint WHERE oid >= 16384),
    (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_trigger WHERE oid >= 16384),
    (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_proc WHERE oid >= 16384),
    (SELECT string_agg(concat_ws(' ', setdatabase, setconfig), ',') FROM pg_db_role_setting)))"""
_LARGEST = "SELECT max(pg_relation_size(oid)) / 8192 FROM pg_class WHERE oid >= 16384"
_PAGES = 10
"""Tables up to this size are planned for like new ones."""


class Databases:
    """Those of one server, all copies of one migrated database."""

    def __init__(self, server: str, template: str) -> None:
        """``server`` is a URL with ``{name}`` for the database."""
        self._server, self._template = server.replace("+psycopg", ""), template
        self._admin = self._connect("postgres")
        found = self._admin.execute("SELECT current_setting('is_superuser')").fetchone()
        self._may_empty = found == ("on",)
        self._free: list[Used] = []
        self._used: dict[str, Used] = {}

    def take(self) -> str:
        """The name of a database that nobody else has."""
        used = self._free.pop() if self._free else self._make()
        self._used[used.name] = used
        return used.name

    def give_back(self, name: str) -> None:
        """Nobody needs it any more."""
        used = self._used.pop(name)
        if self._may_empty and used.is_left() and used.is_as_it_was():
            used.empty()
            self._free.append(used)
        else:
            self._drop(used)

    def close(self) -> None:
        """Drop all."""
        for used in [*self._free, *self._used.values()]:
            self._drop(used)
        self._admin.close()

    def _connect(self, name: str) -> Connection:
        return psycopg.connect(self._server.format(name=name), autocommit=True)

    def _make(self) -> "Used":
        name = f"test_{uuid4().hex[:12]}"
        statement = SQL("CREATE DATABASE {} TEMPLATE {}")
        self._admin.execute(statement.format(Identifier(name), Identifier(self._template)))
        return Used(name, self._connect(name))

    def _drop(self, used: "Used") -> None:
        with suppress(psycopg.Error):  # the test may have ended this connection
            used.connection.close()
        statement = SQL("DROP DATABASE {} WITH (FORCE)")
        self._admin.execute(statement.format(Identifier(used.name)))


class Used:
    """A database, what was in it at first, and a connection to it."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name, self.connection = name, connection
        self._schema = self._one(_SCHEMA)
        self._tables = self._all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        self._rows = {
            table: b"".join(self._copied(table))
            for table in self._tables
            if self._one(SQL("SELECT EXISTS (SELECT FROM {})").format(Identifier(table)))
        }
        self._restart = "; ".join(
            self._all(
                "SELECT format('ALTER SEQUENCE %I RESTART WITH %s', sequencename,"
                " coalesce(last_value + 1, start_value)) FROM pg_sequences"
            )
        )

    def is_left(self) -> bool:
        """Whether whoever was connected is so no more, or soon will be."""
        try:
            for _ in range(_LOOKS):
                if not self._one(_OTHERS):
                    return True
                self.connection.execute("SELECT pg_sleep(0.005)")
        except psycopg.OperationalError:  # this connection was ended with the others
            pass
        return False

    def is_as_it_was(self) -> bool:
        """Whether no table, column, index or the like is another."""
        return self._one(_SCHEMA) == self._schema

    def empty(self) -> None:
        """Let it hold what it held at first."""
        with self.connection.transaction():
            self.connection.execute("SET LOCAL session_replication_role = replica")
            names = [Identifier(table) for table in self._tables]
            if self._one(_LARGEST) > _PAGES:
                self.connection.execute(SQL("TRUNCATE {}").format(SQL(", ").join(names)))
            else:
                deletions = [SQL("DELETE FROM {}").format(name) for name in names]
                self.connection.execute(SQL("; ").join(deletions))
            self.connection.execute(self._restart)
            for table, rows in self._rows.items():
                statement = SQL("COPY {} FROM STDIN").format(Identifier(table))
                with self.connection.cursor().copy(statement) as copy:
                    copy.write(rows)

    def _copied(self, table: str) -> list[bytes]:
        statement = SQL("COPY {} TO STDOUT").format(Identifier(table))
        with self.connection.cursor().copy(statement) as copy:
            return [bytes(part) for part in copy]

    def _one(self, query: str | Composed):
        [value] = self.connection.execute(query).fetchone()
        return value

    def _all(self, query: str) -> list[str]:
        return [value for (value,) in self.connection.execute(query)]
