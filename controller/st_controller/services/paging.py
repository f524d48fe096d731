"""Cursors of lists: opaque to callers, checked when they come back."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from st_controller.errors import InvalidRequest
from st_shared.characters import check_text
from st_shared.protocol.message import LARGEST_NUMBER
from st_shared.protocol.problems import FieldProblem

LARGEST = LARGEST_NUMBER
"""The largest number that the columns behind a place can hold."""


def encode_cursor(at: datetime, row_id: str) -> str:
    """The place after the row with this moment and id."""
    return _pack([at.isoformat(), row_id])


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """The moment and id that a cursor stands for, or ``InvalidRequest``."""
    try:
        at, row_id = _unpack(cursor)
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise _bad("cursor")
        # Moments at the ends of the calendar have no place in UTC.
        return moment.astimezone(UTC), check_text(str(row_id))
    except (ValueError, TypeError, OverflowError):
        raise _bad("cursor") from None


def encode_name(name: str, row_id: str) -> str:
    """The place after the row with this name and id."""
    return _pack([name, row_id])


def decode_name(cursor: str) -> tuple[str, str]:
    """The name and id that a cursor stands for, or ``InvalidRequest``."""
    try:
        name, row_id = _unpack(cursor)
        return check_text(str(name)), check_text(str(row_id))
    except ValueError:
        raise _bad("cursor") from None


def encode_place(attempt: int, seq: int) -> str:
    """The place after line ``seq`` of attempt ``attempt``: ``"2:174"``."""
    return f"{attempt}:{seq}"


def decode_place(place: str | None, field: str = "after") -> tuple[int, int]:
    """Attempt and line of a place; none: before the first, or ``InvalidRequest``."""
    if not place:
        return 0, 0
    attempt, colon, seq = place.partition(":")
    if not (colon and attempt.isdecimal() and seq.isdecimal()):
        raise _bad(field)
    if max(int(attempt), int(seq)) > LARGEST:
        raise _bad(field)
    return int(attempt), int(seq)


def decode_number(cursor: str, field: str = "cursor") -> int:
    """The number that a cursor is, or ``InvalidRequest``."""
    if not cursor.isdecimal() or len(cursor) > len(str(LARGEST)) or int(cursor) > LARGEST:
        raise _bad(field)
    return int(cursor)


def _pack(value: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _unpack(text: str) -> list[Any]:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value = json.loads(raw)
    except (binascii.Error, ValueError) as error:
        raise ValueError(text) from error
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(text)
    return value


def _bad(field: str) -> InvalidRequest:
    said = "use the value that the last page gave, unchanged"
    return InvalidRequest(
        f"{field} is not a cursor of ours", errors=[FieldProblem(field=field, message=said)]
    )
