"""New rows, written with as little ado as the database allows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from sqlalchemy import JSON, Connection, Dialect, Insert, Table, text

_FEW = 16
"""Up to here PostgreSQL takes a statement for each row as quickly as one for all."""


def insert_all(connection: Connection, insert: Insert, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert ``rows``, which all have the same columns and leave none to Python's defaults.

    Gives how many were inserted: fewer where ``insert`` passes over conflicts.

    Make ``insert`` once, at the top of a module. PostgreSQL takes many rows as one JSON document,
    which spares its driver a message and a conversation about types for each.
    """
    if not rows:
        return 0
    if connection.dialect.name == "postgresql" and len(rows) > _FEW:
        return _insert_document(connection, insert, rows)
    prepared = _prepared(connection.dialect, insert, tuple(rows[0]))
    values = [prepared.values(row) for row in rows]
    done = connection.exec_driver_sql(prepared.sql, values[0] if len(values) == 1 else values)
    return done.rowcount


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
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def _insert_document(
    connection: Connection, insert: Insert, rows: Sequence[Mapping[str, Any]]
) -> int:
    quote = connection.dialect.identifier_preparer.quote
    table = quote(_table(insert).name)
    columns = ", ".join(quote(name) for name in rows[0])
    done = connection.execute(
        text(
            f"INSERT INTO {table} ({columns})"  # noqa: S608 - names of our own schema
            f" SELECT {columns} FROM json_populate_recordset(null::{table}, :rows)"
        ),
        {"rows": to_json(rows).decode()},
    )
    return done.rowcount


def _table(insert: Insert) -> Table:
    assert isinstance(insert.table, Table)  # noqa: S101 - nothing else is inserted into
    return insert.table
