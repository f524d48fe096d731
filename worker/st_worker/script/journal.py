"""Appends events of a script to the journal that the agent has begun."""

import errno
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from st_shared.redaction import Redactor

PATIENCE = 20.0
"""Seconds that a script waits for room on a full disk before it fails."""
_PAUSE = 0.5
_TAIL_BYTES = 2 * 65_536
"""Twice the longest line of a journal."""


def _now() -> datetime:
    return datetime.now(UTC)


class ScriptJournal:
    """Numbers go on after the last line; each line is handed to the operating system at once."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime] = _now,
        sleep: Callable[[float], None] = time.sleep,
        *,
        redactor: Redactor | None = None,
    ) -> None:
        """``redactor`` takes out of each line what is secret."""
        self._redactor = redactor or Redactor({})
        self._clock, self._sleep, self._patience = clock, sleep, PATIENCE
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
        """Append a line whole, or leave the file as it was and raise the ``OSError``.

        On a full disk all lines together wait ``PATIENCE`` seconds for room, and the script with
        them: the agent gives back what it has shipped.
        """
        told = self._redactor.json(fields)
        event = {"seq": self._seq + 1, "at": self._clock().isoformat(), **told}
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        while not self._is_written(line):
            self._patience -= _PAUSE
            self._sleep(_PAUSE)
        self._size += len(line)
        self._seq += 1

    def _is_written(self, line: bytes) -> bool:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            if error.errno not in {errno.ENOSPC, errno.EDQUOT} or self._patience <= 0:
                raise
            return False
        return True
