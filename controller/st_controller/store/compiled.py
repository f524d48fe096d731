"""Statements in the driver's own words, for those of every submission: said once, run often."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, Connection, CursorResult

_Encoder = Callable[[Any], Any]


class _Words(NamedTuple):
    """A statement as one driver understands it."""

    sql: str
    places: tuple[str, ...] | None
    """Names of the values in the order of the statement's marks; none: the marks have names."""
    encoders: Mapping[str, _Encoder]
    constants: dict[str, Any]
    """Values that belong to the statement itself."""


class Compiled:
    """A statement whose values all are bound by name; make it once, at the top of a module.

    The library would look it up, and make it fit its values, anew at every call.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._known: dict[str, _Words] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        """Run it with these values; those that it does not name are left out."""
        words = self._known.get(connection.dialect.name) or self._say(connection)
        encoded = words.constants | {
            name: words.encoders[name](value) if name in words.encoders else value
            for name, value in values.items()
        }
        given = encoded if words.places is None else tuple(encoded[name] for name in words.places)
        return connection.exec_driver_sql(words.sql, given)

    def _say(self, connection: Connection) -> _Words:
        dialect = connection.dialect
        compiled = self._statement.compile(dialect=dialect)
        places = getattr(compiled, "positiontup", None)
        found = {
            name: bound.type.dialect_impl(dialect).bind_processor(dialect)
            for name, bound in getattr(compiled, "binds", {}).items()
        }
        words = _Words(
            str(compiled),
            None if places is None else tuple(places),
            {name: encoder for name, encoder in found.items() if encoder},
            {name: value for name, value in compiled.params.items() if value is not None},
        )
        self._known[dialect.name] = words
        return words
