"""Moments in the database: aware UTC in Python, on SQLite and PostgreSQL alike."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, BindParameter, DateTime, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

Moment = datetime | BindParameter[datetime]
"""A moment in a condition, or the place of one in a statement that is made once."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class UtcMoment(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite keeps it without zone, PostgreSQL as ``timestamptz``."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive moments; hand the database UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware UTC moment."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970, without rounding."""
    return (moment - _BEGINNING) // timedelta(microseconds=1)


class Microseconds(FunctionElement[int]):
    """The same of a column, counted by the database."""

    type = BigInteger()
    name = "microseconds"
    inherit_cache = True


@compiles(Microseconds, "sqlite")
def _on_sqlite(element: Microseconds, compiler: Any, **options: Any) -> str:
    # Kept as text: 2026-01-01 00:00:00.000000
    text = compiler.process(element.clauses, **options)
    seconds = f"CAST(strftime('%s', {text}) AS INTEGER)"
    return f"({seconds} * 1000000 + CAST(substr({text}, 21, 6) AS INTEGER))"


@compiles(Microseconds, "postgresql")
def _on_postgresql(element: Microseconds, compiler: Any, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"CAST(EXTRACT(EPOCH FROM {moment}) * 1000000 AS BIGINT)"
