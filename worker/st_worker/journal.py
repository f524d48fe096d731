"""Reads a journal that is still being written, from a byte offset, whole lines only.

What has been dealt with is given back to the disk as a hole at the beginning of the file: offsets
and numbers of the other lines stay, whoever is writing or reading meanwhile, and whoever dies.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from st_shared.clock import Clock, utc_now
from st_shared.durable import write_whole
from st_shared.protocol.journal import MAX_LINE_BYTES, JournalEvent, LogEvent, journal_event
from st_worker.errors import JournalLost
from st_worker.holes import GRAIN_BYTES, first_byte, punch

BATCH_LINES = 500
BATCH_BYTES = 512 * 1024
KEPT_BYTES = 8 * 2**20
"""Of what has been dealt with, the end that stays on the disk: enough for what is asked again."""
_SHOWN_CHARACTERS = 2000


class Cursor(BaseModel):
    """A place in a journal: the line that was dealt with last, and the byte after it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offset: int = 0
    seq: int = 0

    @classmethod
    def load(cls, path: Path, *, start: int = 0) -> Self:
        """The cursor in ``path``; the beginning, after line ``start``, when there is none.

        A damaged one counts as none: what is sent twice is dropped by the controller.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return cls(offset=0, seq=start)

    def save(self, path: Path) -> None:
        """Keep it, without waiting for the disk: heartbeats go on beside this."""
        write_whole(path, self.model_dump_json(), synced=False)


@dataclass(frozen=True)
class Line:
    """One whole line."""

    event: JournalEvent
    after: Cursor
    """The place behind it."""


class Journal:
    """The lines of a journal; the file need not exist yet."""

    def __init__(self, path: Path, clock: Clock = utc_now) -> None:
        self._path, self._clock = path, clock

    def read(self, after: Cursor) -> list[Line]:
        """The next whole lines, at most ``BATCH_LINES`` of them or ``BATCH_BYTES``."""
        lines = []
        after = self._beyond_the_hole(after)
        for raw, size in self._raw_lines(after.offset):
            after = Cursor(offset=after.offset + size, seq=after.seq + 1)
            lines.append(Line(self._event(raw, size, after.seq), after))
        return lines

    def release(self, dealt_with: int) -> bool:
        """Give the disk what lies well before this offset; false where nothing was to be given.

        Nothing is lost when it is interrupted, and it may be called at any time.
        """
        end = (dealt_with - KEPT_BYTES) // GRAIN_BYTES * GRAIN_BYTES
        return end > 0 and punch(self._path, end)

    def locate(self, seq: int) -> Cursor:
        """The place behind line ``seq``; line 0 stands before the first of all.

        Raises:
            JournalLost: that line is not in the file.
        """
        for place in self._places():
            if place.seq == seq:
                return place
        raise JournalLost(f"{self._path} does not hold line {seq}, which the controller has")

    def end(self, start: int = 0) -> Cursor:
        """The place behind the last whole line; after line ``start`` if there is none at all."""
        *_, last = self._places(start)
        return last

    def last_at(self) -> datetime | None:
        """When the newest whole line was written; none: there is none."""
        tail = self._tail() if self._path.exists() else []
        for raw in reversed(tail):
            with suppress(ValidationError):
                return journal_event.validate_json(raw).at
        return None

    def last_error(self) -> str | None:
        """The newest log line of level error among the last ones; none when there is none."""
        errors = (event.message for event in self._newest_logs() if event.level == "error")
        return next(errors, None)

    def last_messages(self, count: int) -> list[str]:
        """The newest ``count`` log lines, oldest first."""
        newest = [event.message for event in islice(self._newest_logs(), count)]
        return newest[::-1]

    def _newest_logs(self) -> Iterator[LogEvent]:
        """Log lines among the last ones, newest first."""
        for raw in reversed(self._tail()):
            try:
                event = journal_event.validate_json(raw)
            except ValidationError:
                continue  # half a line, or one that was reported as broken when it was shipped
            if isinstance(event, LogEvent):
                yield event

    def _places(self, start: int = 0) -> Iterator[Cursor]:
        """Where lines end, the beginning included; lines count from the first one's number."""
        try:
            with self._path.open("rb") as file:
                place = _beginning(file, Cursor(seq=start))
                yield place
                file.seek(place.offset)
                for raw in file:
                    if raw.endswith(b"\n"):
                        place = Cursor(offset=place.offset + len(raw), seq=place.seq + 1)
                        yield place
        except FileNotFoundError:
            yield Cursor(seq=start)

    def _beyond_the_hole(self, after: Cursor) -> Cursor:
        """The same place, or the first behind the hole if it lies in there.

        That happens after a place was not kept, on a full disk say: all before was dealt with.
        """
        try:
            with self._path.open("rb") as file:
                in_hole = first_byte(file.fileno(), after.offset) > after.offset
                return _beginning(file, after) if in_hole else after
        except FileNotFoundError:
            return after

    def _tail(self) -> list[bytes]:
        with self._path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - BATCH_BYTES))
            return file.read().splitlines()

    def _raw_lines(self, offset: int) -> list[tuple[bytes, int]]:
        """Whole lines from ``offset`` on, each with its break, and its bytes.

        Of a line that is longer than a batch only the beginning is read.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                piece = file.read(BATCH_BYTES)
                end = piece.rfind(b"\n") + 1
                if not end and len(piece) == BATCH_BYTES:
                    rest = _until_break(file)
                    return [(piece, BATCH_BYTES + rest)] if rest else []
        except FileNotFoundError:
            return []
        # At line feeds alone, as everywhere: a stray CR must not shift numbers.
        lines = [line + b"\n" for line in piece[:end].split(b"\n")[:-1]]
        return [(line, len(line)) for line in lines[:BATCH_LINES]]

    def _event(self, raw: bytes, size: int, seq: int) -> JournalEvent:
        """The event of a line; one that breaks the contract is replaced: no number is missing."""
        if size > MAX_LINE_BYTES:
            said = f"the trainer wrote a line of {size} bytes, more than {MAX_LINE_BYTES}"
            return self._replaced(raw, seq, said)
        try:
            event = journal_event.validate_json(raw)
        except ValidationError:
            return self._replaced(raw, seq, "the trainer wrote a line that is not an event")
        if event.seq != seq:
            said = f"the trainer wrote line {event.seq} where line {seq} was due"
            return self._replaced(raw, seq, said)
        return event

    def _replaced(self, raw: bytes, seq: int, said: str) -> LogEvent:
        shown = raw[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace").strip()
        message = f"{said}: {shown[:_SHOWN_CHARACTERS]}"
        return LogEvent(seq=seq, at=self._clock(), level="error", message=message)


def _until_break(file: BinaryIO) -> int:
    """Bytes up to the next line feed, with it; 0 where there is none yet."""
    passed = 0
    while piece := file.read(BATCH_BYTES):
        end = piece.find(b"\n") + 1
        if end:
            return passed + end
        passed += len(piece)
    return 0


def _beginning(file: BinaryIO, otherwise: Cursor) -> Cursor:
    """The place before the first whole line that is on the disk; the line numbers itself."""
    offset = first_byte(file.fileno(), 0)
    file.seek(offset)
    if offset:
        offset += len(file.readline())  # the end of a line that begins in the hole
    for broken, raw in enumerate(file):  # lines that break the contract count all the same
        if seq := _seq_of(raw, 0):
            return Cursor(offset=offset, seq=seq - broken - 1)
        if not offset:
            break
    return Cursor(offset=offset, seq=otherwise.seq)


def _seq_of(raw: bytes, otherwise: int) -> int:
    """The number that the first line of a journal gives itself."""
    try:
        seq = json.loads(raw)["seq"]
    except (ValueError, TypeError, KeyError):
        return otherwise
    return seq if isinstance(seq, int) and seq >= 1 else otherwise


def events(lines: list[Line]) -> Iterator[dict[str, Any]]:
    """The lines as a batch carries them."""
    for line in lines:
        yield line.event.model_dump(mode="json", exclude_none=True)
