"""Pages of a list that go on after the last row of the one before, however far that lies."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, literal, tuple_

from st_controller.store.moments import UtcMoment


def earlier(at: Any, key: Any, place: tuple[datetime, str]) -> ColumnElement[bool]:
    """Rows before a moment and id, where lists begin with the newest.

    One comparison of rows, and not of one column and then the other: an index on both leads to the
    place, instead of through all that comes before it.
    """
    found: ColumnElement[bool] = tuple_(at, key) < _place(place)
    return found


def later(at: Any, key: Any, place: tuple[datetime, str]) -> ColumnElement[bool]:
    """Rows after a moment and id, where lists begin with the oldest."""
    found: ColumnElement[bool] = tuple_(at, key) > _place(place)
    return found


def begins(key: Any, beginning: str) -> ColumnElement[bool]:
    """Rows whose id begins so: those between two ids, which an index finds in any collation."""
    length = beginning.index("_") + 27
    first, last = beginning.ljust(length, "0"), beginning.ljust(length, "z")
    found: ColumnElement[bool] = key.between(first, last)
    return found


def _place(place: tuple[datetime, str]) -> Any:
    return tuple_(literal(place[0], UtcMoment()), literal(place[1]))
