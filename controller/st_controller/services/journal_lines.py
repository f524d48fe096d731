"""Journal lines as workers send them, checked against the contract and packed."""

import json
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from pydantic import TypeAdapter, ValidationError

from st_shared.protocol.journal import (
    MAX_LINE_BYTES,
    JournalEvent,
    LogEvent,
    MetricEvent,
    ProgressEvent,
    journal_event,
)
from st_shared.protocol.message import Moment

_SHOWN_BYTES = 2000
_DEFAULTS_BYTES = 512
"""What the fields add that the trainer left at their defaults."""
_ESCAPED = 6
"""Bytes that a character needs at most in JSON: ``\\u001f``."""
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
_LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""Moments beyond have no place in other time zones."""

_moment: TypeAdapter[datetime] = TypeAdapter(Moment)
_events: TypeAdapter[list[JournalEvent]] = TypeAdapter(list[JournalEvent])


def checked(lines: Sequence[dict[str, Any]]) -> list[JournalEvent]:
    """The lines as the contract has them; one that breaks it is kept as an error for people."""
    try:
        events = _events.validate_python(list(lines))  # nearly always, and several times as fast
    except ValidationError:
        return [_checked(line) for line in lines]
    return [
        event if (flaw := _flaw(event)) is None else _kept_as_error(line, flaw)
        for event, line in zip(events, lines, strict=True)
    ]


def pack(lines: Iterable[bytes]) -> bytes:
    """Lines of JSON as they are stored: NDJSON in gzip, which any ``zcat`` reads."""
    return packed_text(b"\n".join(lines))


def packed_text(text: bytes, level: int = 1) -> bytes:
    """NDJSON in gzip; the same bytes for the same text."""
    packing = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packing.compress(text) + packing.flush()


def unpack(packed: bytes) -> bytes:
    """The NDJSON that ``pack`` was given."""
    return zlib.decompress(packed, 16 + zlib.MAX_WBITS)


def _checked(line: dict[str, Any]) -> JournalEvent:
    try:
        event = journal_event.validate_python(line)
    except ValidationError as error:
        return _kept_as_error(line, f"{error.error_count()} mistakes")
    flaw = _flaw(event)
    return event if flaw is None else _kept_as_error(line, flaw)


def _flaw(event: JournalEvent) -> str | None:
    """What readers could not be told: JSON has no such numbers, and moments need a zone."""
    if event.at.tzinfo is None:
        return "'at' has no time zone"
    if not _EARLIEST < event.at < _LATEST:
        return "'at' is at the end of the calendar"
    if isinstance(event, LogEvent):
        if len(event.message) * _ESCAPED < MAX_LINE_BYTES and event.message.isascii():
            return None
    elif not all(number is None or isfinite(number) for number in _numbers(event)):
        return "a number is not finite"
    return _wire_flaw(event)


def _numbers(event: JournalEvent) -> Iterable[float | None]:
    if isinstance(event, MetricEvent):
        return event.values.values()
    if isinstance(event, ProgressEvent):
        return (event.steps_per_second, event.eta_seconds, event.loss)
    return ()


def _wire_flaw(event: JournalEvent) -> str | None:
    """What nobody could be sent: text that UTF-8 does not have, or more than a line may hold."""
    line = event.model_dump(mode="json")
    try:
        size = len(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair"
    if size > MAX_LINE_BYTES + _DEFAULTS_BYTES:
        return f"it has {size} bytes, more than {MAX_LINE_BYTES}"
    return None


def _kept_as_error(line: dict[str, Any], flaw: str) -> LogEvent:
    said = f"a journal line could not be read ({flaw}): {json.dumps(line)[:_SHOWN_BYTES]}"
    try:
        at = _moment.validate_python(line.get("at"))
    except ValidationError:
        at = datetime.fromtimestamp(0, UTC)
    if not _EARLIEST < at < _LATEST:
        at = datetime.fromtimestamp(0, UTC)
    return LogEvent(seq=line["seq"], at=at, level="error", message=said)
