"""The worker's own lines in a journal, before the trainer starts and after it has ended."""

import os
from pathlib import Path
from typing import Literal

import structlog

from st_shared.clock import Clock, utc_now
from st_shared.protocol.journal import LogEvent, OutputEvent
from st_worker.errors import FULL_DISK
from st_worker.journal import Cursor, Journal

log = structlog.get_logger(__name__)

_LONGEST_MESSAGE = 4000

Level = Literal["debug", "info", "warning", "error"]


class Notes:
    """Appends to a journal that nobody else is writing; a torn last line is dropped first.

    A line for which a full disk has no room is left out: it must not cost the attempt.

    ``start`` is the last line that the controller held when the attempt was claimed: a journal
    that begins empty goes on from there.
    """

    def __init__(self, path: Path, *, start: int = 0, clock: Clock = utc_now) -> None:
        self._path, self._start, self._clock = path, start, clock

    def log(self, message: str, level: Level = "info") -> None:
        """Add a line for people."""
        text = message if len(message) <= _LONGEST_MESSAGE else message[:_LONGEST_MESSAGE] + "…"
        seq = self._end().seq + 1
        self._append(LogEvent(seq=seq, at=self._clock(), level=level, message=text))

    def output_log(self, path: str) -> None:
        """Announce the trainer's output, ``path`` below the run folder, as a file of the result."""
        seq = self._end().seq + 1
        self._append(OutputEvent(seq=seq, at=self._clock(), name="log", path=path))

    def _append(self, event: LogEvent | OutputEvent) -> None:
        """Cut a torn line off, then write a whole one; the operating system has it at once.

        On a full disk the line is left out: how the attempt ends does not depend on it.
        """
        line = event.model_dump_json(exclude_none=True).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            end = self._end().offset
            file.truncate(end)
            file.seek(0, os.SEEK_END)
            try:
                whole = file.write(line) == len(line)
            except OSError as error:
                if error.errno not in FULL_DISK:
                    raise
                whole = False
            if not whole:
                file.truncate(end)
                log.warning("journal.note_left_out", why="the disk is full")

    def _end(self) -> Cursor:
        return Journal(self._path, self._clock).end(self._start)
