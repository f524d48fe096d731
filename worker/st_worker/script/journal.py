"""Appends events of a script to the journal that the agent has begun."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

_TAIL_BYTES = 2 * 65_536
"""Twice the longest line of a journal."""


def _now() -> datetime:
    return datetime.now(UTC)


class ScriptJournal:
    """Numbers go on after the last line; each line is handed to the operating system at once."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size
        start = max(0, self._size - _TAIL_BYTES)
        last = os.pread(self._descriptor, self._size - start, start).splitlines()[-1]
        self._seq: int = json.loads(last)["seq"]

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def log(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """A line for people."""
        self._append({"kind": "log", "level": level, "message": message})

    def output(self, path: str) -> None:
        """A file of the result lies complete at ``path``, relative to the run folder."""
        self._append({"kind": "output", "name": "file", "path": path})

    def _append(self, fields: dict[str, str]) -> None:
        """Append a line whole, or leave the file as it was and raise the ``OSError``."""
        event = {"seq": self._seq + 1, "at": self._clock().isoformat(), **fields}
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)
        self._seq += 1
