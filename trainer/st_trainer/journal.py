"""Writes the journal: one event a line, appended whole, numbered without gaps."""

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel

from st_shared.clock import Clock, utc_now
from st_shared.protocol.journal import MAX_LINE_BYTES, JournalEvent, journal_event
from st_shared.redaction import from_environment

Listener = Callable[[JournalEvent], None]
Level = Literal["debug", "info", "warning", "error"]
Phase = Literal["loading", "caching", "training", "validating", "saving", "done"]
OutputName = Literal["weights", "loss_curve", "sample_grid", "report", "log", "file"]

PATIENCE = 20.0
"""Seconds that a training waits for room before it fails."""
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_PAUSE = 0.5
_LONGEST_MESSAGE = 16_384
_SHORTENED = "… (shortened)"


class Journal:
    """Appends events to a file; ``seq`` goes on where an earlier process of the run stopped.

    A last line that was torn by a crash is dropped when the journal is opened. Each line is
    handed to the operating system at once, so it survives the death of this process.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock = utc_now,
        listener: Listener | None = None,
        *,
        patience: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``patience``: seconds that all lines together wait for room on a full disk."""
        self._clock = clock
        self._listeners = [listener] if listener else []
        self._patience, self._sleep = patience, sleep
        self._redactor = from_environment(os.environ)
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._size, self._seq = _recover(self._descriptor, path)

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @property
    def seq(self) -> int:
        """Number of the last line; 0 while there is none."""
        return self._seq

    def add_listener(self, listener: Listener) -> None:
        """From now on ``listener`` is told of each event, once it is written; it may write too."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """It is told of nothing more."""
        self._listeners.remove(listener)

    def log(self, message: str, level: Level = "info") -> None:
        """A line for people."""
        self._append({"kind": "log", "level": level, "message": message})

    def metric(self, step: int, values: dict[str, float]) -> None:
        """Numbers measured at ``step``."""
        self._append({"kind": "metric", "step": step, "values": values})

    def progress(
        self,
        phase: Phase,
        step: int,
        steps: int,
        *,
        steps_per_second: float | None = None,
        eta_seconds: float | None = None,
        loss: float | None = None,
    ) -> None:
        """How far the run is."""
        pace = {"steps_per_second": steps_per_second, "eta_seconds": eta_seconds, "loss": loss}
        self._append({"kind": "progress", "phase": phase, "step": step, "steps": steps, **pace})

    def sample(self, step: int, path: str, prompts: list[str]) -> None:
        """A picture lies complete at ``path``, relative to the run folder."""
        self._append({"kind": "sample", "step": step, "path": path, "prompts": prompts})

    def checkpoint(self, step: int, manifest: str) -> None:
        """A checkpoint is complete; ``manifest`` is relative to the run folder."""
        self._append({"kind": "checkpoint", "step": step, "manifest": manifest})

    def output(self, name: OutputName, path: str) -> None:
        """A file of the result lies complete at ``path``, relative to the run folder."""
        self._append({"kind": "output", "name": name, "path": path})

    def _append(self, fields: dict[str, Any]) -> None:
        fields = _shortened(self._redactor.json(_encodable(fields)))
        event = journal_event.validate_python({"seq": self._seq + 1, "at": self._clock(), **fields})
        self._write(_line(event))
        self._seq += 1
        for listener in list(self._listeners):
            listener(event)

    def _write(self, line: bytes) -> None:
        """Append ``line`` whole, or leave the file as it was and raise the ``OSError``.

        The worker gives back what it has shipped, so that there may soon be room again.
        """
        while True:
            try:
                return self._try_to_write(line)
            except OSError as error:
                if error.errno not in _FULL_DISK or self._patience <= 0:
                    raise
            self._patience -= _PAUSE
            self._sleep(_PAUSE)

    def _try_to_write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)


class SilentJournal(Journal):
    """Takes everything and keeps nothing: for the ranks that do not write."""

    def __init__(self) -> None:
        self._seq = 0
        self._listeners = []

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def _append(self, fields: dict[str, Any]) -> None:
        """Forget it."""


def _recover(descriptor: int, path: Path) -> tuple[int, int]:
    """Cut a torn last line off; give the size that remains and the last ``seq`` in it."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 2 * MAX_LINE_BYTES)
    tail = os.pread(descriptor, size - start, start)
    whole = tail[: tail.rfind(b"\n") + 1]
    if start and not whole:
        raise ValueError(f"{path} is no journal: it has a line longer than {MAX_LINE_BYTES} bytes")
    kept = start + len(whole)
    os.ftruncate(descriptor, kept)
    lines = whole.splitlines()
    return kept, journal_event.validate_json(lines[-1]).seq if lines else 0


def _line(event: BaseModel) -> bytes:
    return event.model_dump_json(exclude_none=True).encode() + b"\n"


def _encodable(value: Any) -> Any:
    """``value`` with text that UTF-8 cannot hold (odd file names) replaced by ``?``."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value if not isinstance(value, dict) else {k: _encodable(v) for k, v in value.items()}


def _shortened(fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` with long texts cut until the line fits ``MAX_LINE_BYTES``."""
    budget = MAX_LINE_BYTES - 1024  # room for seq, time and the other short fields
    if "message" in fields:
        return fields | {"message": _cut(fields["message"], min(budget, _LONGEST_MESSAGE))}
    prompts = fields.get("prompts", [])
    if len(json.dumps(prompts, ensure_ascii=False).encode()) <= budget:
        return fields
    each = budget // len(prompts) - 4  # quotes, comma and a spare
    return fields | {"prompts": [_cut(prompt, each) for prompt in prompts]}


def _cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` bytes of JSON."""
    if len(json.dumps(text, ensure_ascii=False).encode()) <= limit:
        return text
    room = limit - len(_SHORTENED.encode()) - 2
    kept, used = [], 0
    for character in text:
        used += len(json.dumps(character, ensure_ascii=False).encode()) - 2
        if used > room:
            break
        kept.append(character)
    return "".join(kept) + _SHORTENED
