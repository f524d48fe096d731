"""New rows, written with as little ado as the database allows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import JSON, Connection, Dialect, Insert, Table
from sqlalchemy.dialects import postgresql

from st_controller.store.moments import UtcMoment

Rows = Sequence[Mapping[str, Any]]
"""Rows of one table: all have the same columns, and leave none to Python's defaults."""


def insert_all(connection: Connection, insert: Insert, rows: Rows) -> int:
    """Insert ``rows``; how many were inserted: none where ``insert`` passes over a conflict.

    Make ``insert`` once, at the top of a module. PostgreSQL takes many rows as one JSON document,
    which spares its driver messages, waits and a conversation about types for each.
    """
    if not rows:
        return 0
    if connection.dialect.name == "postgresql" and len(rows) > 1:
        return _insert_documents(connection, [(insert, rows)])
    prepared = _prepared(connection.dialect, insert, tuple(rows[0]))
    values = [prepared.values(row) for row in rows]
    done = connection.exec_driver_sql(prepared.sql, values[0] if len(values) == 1 else values)
    return done.rowcount


def insert_together(connection: Connection, *parts: tuple[Insert, Rows]) -> None:
    """Insert into several tables, in one statement where the database knows how.

    Later parts may refer to rows of earlier ones.
    """
    given = [(insert, rows) for insert, rows in parts if rows]
    if connection.dialect.name == "postgresql" and len(given) > 1:
        _insert_documents(connection, given)
        return
    for insert, rows in given:
        insert_all(connection, insert, rows)


def document(rows: Rows) -> str:
    """Rows as PostgreSQL takes them."""
    return to_json(rows).decode()


@cache
def insert_document(insert: Insert, names: tuple[str, ...]) -> str:
    """PostgreSQL's statement that inserts a document of rows with these columns."""
    quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]
    table, columns = quote(_table(insert).name), ", ".join(map(quote, names))
    return (
        f"INSERT INTO {table} ({columns})"  # noqa: S608 - names of our own schema
        f" SELECT {columns} FROM json_populate_recordset(null::{table}, %s)"
    )


def _insert_documents(connection: Connection, parts: Sequence[tuple[Insert, Rows]]) -> int:
    """How many were inserted by the last part."""
    sql = _of_several(tuple((insert, tuple(rows[0])) for insert, rows in parts))
    return connection.exec_driver_sql(sql, tuple(document(rows) for _, rows in parts)).rowcount


@cache
def _of_several(parts: tuple[tuple[Insert, tuple[str, ...]], ...]) -> str:
    *before, last = (insert_document(insert, names) for insert, names in parts)
    named = ", ".join(f"part_{number} AS ({said})" for number, said in enumerate(before))
    return f"WITH {named} {last}" if named else last


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An insertion in the driver's own words; the library would find them anew every time."""

    sql: str
    places: Sequence[str] | None
    """Columns in the order of the statement's marks; none: the marks have names."""
    encoders: Mapping[str, Callable[[Any], Any]]

    def values(self, row: Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        encoded = {
            name: self.encoders[name](value) if name in self.encoders else value
            for name, value in row.items()
        }
        return encoded if self.places is None else tuple(encoded[name] for name in self.places)


_known: dict[tuple[str, Insert, tuple[str, ...]], _Prepared] = {}


def _prepared(dialect: Dialect, insert: Insert, columns: tuple[str, ...]) -> _Prepared:
    key = (dialect.name, insert, columns)
    found = _known.get(key)
    if found is None:
        compiled = insert.compile(dialect=dialect, column_keys=list(columns))
        places = getattr(compiled, "positiontup", None)
        encoders = {name: _encoder(_table(insert), name, dialect) for name in columns}
        known = {name: encode for name, encode in encoders.items() if encode}
        found = _known[key] = _Prepared(str(compiled), places, known)
    return found


def _encoder(table: Table, column: str, dialect: Dialect) -> Callable[[Any], Any] | None:
    kind = table.c[column].type
    if isinstance(kind, JSON):
        return _json
    encode = kind.dialect_impl(dialect).bind_processor(dialect)
    if encode and isinstance(kind, UtcMoment):
        return lru_cache(16)(encode)  # rows of one transaction hold its moment again and again
    return encode


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def _table(insert: Insert) -> Table:
    assert isinstance(insert.table, Table)  # noqa: S101 - nothing else is inserted into
    return insert.table
