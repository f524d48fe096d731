"""Columns of rows written at once, past the unit of work, where every microsecond counts."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import Update, bindparam, inspect, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from st_controller.store.schema import Table


def write(
    session: Session,
    row: Table,
    values: Mapping[str, Any],
    *,
    only_if: Mapping[str, Any] | None = None,
) -> bool:
    """Write these columns of a row that is loaded, and show them on it.

    False: nothing was written, because the row is gone or is not as ``only_if`` says. What was
    assigned to other columns is still written with the next flush.
    """
    condition = only_if or {}
    table = cast(SqlTable, inspect(type(row)).local_table)
    statement = _statement(table, tuple(values), tuple(condition))
    given = {f"old_{name}": value for name, value in condition.items()}
    given |= {f"key_{column.name}": getattr(row, column.name) for column in table.primary_key}
    if session.connection().execute(statement, {**values, **given}).rowcount != 1:
        return False
    for name, value in values.items():
        set_committed_value(row, name, value)
    return True


def write_all(session: Session, rows: Sequence[Table], values: Mapping[str, Any]) -> None:
    """Write the same columns of several rows of one table, which are loaded and locked."""
    if not rows:
        return
    table = cast(SqlTable, inspect(type(rows[0])).local_table)
    (key,) = table.primary_key
    statement = _statement_for_all(table, tuple(values))
    ids = [getattr(row, key.name) for row in rows]
    session.connection().execute(statement, {**values, "keys": ids})
    for row in rows:
        for name, value in values.items():
            set_committed_value(row, name, value)


def write_each(
    session: Session, rows: Sequence[Table], values: Sequence[Mapping[str, Any]]
) -> None:
    """Write the same columns of rows of one table, which are loaded and locked, each its own."""
    if not rows:
        return
    table = cast(SqlTable, inspect(type(rows[0])).local_table)
    statement = _statement(table, tuple(values[0]), ())
    (key,) = table.primary_key
    session.connection().execute(
        statement,
        [
            {**each, f"key_{key.name}": getattr(row, key.name)}
            for row, each in zip(rows, values, strict=True)
        ],
    )
    for row, each in zip(rows, values, strict=True):
        for name, value in each.items():
            set_committed_value(row, name, value)


@lru_cache(maxsize=64)
def _statement_for_all(table: SqlTable, columns: tuple[str, ...]) -> Update:
    (key,) = table.primary_key
    chosen = key.in_(bindparam("keys", expanding=True))
    return update(table).where(chosen).values({name: bindparam(name) for name in columns})


@lru_cache(maxsize=256)
def _statement(table: SqlTable, columns: tuple[str, ...], condition: tuple[str, ...]) -> Update:
    """Made once: building a statement costs more than running it."""
    chosen = [column == bindparam(f"key_{column.name}") for column in table.primary_key]
    chosen += [table.c[name] == bindparam(f"old_{name}") for name in condition]
    return update(table).where(*chosen).values({name: bindparam(name) for name in columns})
