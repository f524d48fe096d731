"""Columns of one row written at once, past the unit of work, where every microsecond counts."""

from collections.abc import Mapping
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


@lru_cache(maxsize=256)
def _statement(table: SqlTable, columns: tuple[str, ...], condition: tuple[str, ...]) -> Update:
    """Made once: building a statement costs more than running it."""
    chosen = [column == bindparam(f"key_{column.name}") for column in table.primary_key]
    chosen += [table.c[name] == bindparam(f"old_{name}") for name in condition]
    return update(table).where(*chosen).values({name: bindparam(name) for name in columns})
