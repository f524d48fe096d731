"""Many new rows of one table in one statement."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, Insert, Table, text

_FEW = 16
"""Up to here a statement for each row costs less."""


def insert_all(connection: Connection, insert: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows``, which all have the same columns and leave none to Python's defaults.

    PostgreSQL takes many rows as one JSON document, which spares its driver a message and a
    conversation about types for each; SQLite is as quick with its own loop.
    """
    if not rows:
        return
    if connection.dialect.name != "postgresql" or len(rows) <= _FEW:
        connection.execute(insert, rows)
        return
    assert isinstance(insert.table, Table)  # noqa: S101 - there is no other insertion here
    quote = connection.dialect.identifier_preparer.quote
    table = quote(insert.table.name)
    columns = ", ".join(quote(name) for name in rows[0])
    connection.execute(
        text(
            f"INSERT INTO {table} ({columns})"  # noqa: S608 - names of our own schema
            f" SELECT {columns} FROM json_populate_recordset(null::{table}, :rows)"
        ),
        {"rows": to_json(rows).decode()},
    )
