"""Runs one command and leaves a note of how it ended: ``python -m st_worker.supervise DIR -- CMD``.

It leads the session of the trainer and outlives a killed agent, so that the exit code is known to
the next one. It imports the standard library alone, to stay small beside the trainer.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

EXIT_NAME = "exit.json"
"""``{"code": int or null, "signal": int or null, "error": text or null, "ended_at": RFC 3339,
"monotonic": seconds since the host was started, "pid": int, "oom_kills": int}``, the pid being the
supervisor's."""

_OOM_COUNTERS = (
    "proc/vmstat",
    "sys/fs/cgroup/memory.events",
    "sys/fs/cgroup/memory/memory.oom_control",
)
"""Where kernels count what they ended for want of memory: on the host, in cgroups 2 and 1."""

_ROOM_SECONDS = 0.5
"""Between two looks whether there is room for the note after all."""
_NOTE_BYTES = 1024
"""Room that is taken for the note at the start, so that a disk that fills up cannot lose it."""


class _Forwarder:
    """Hands the first request to stop on to the child; the trainer takes a second as an order."""

    def __init__(self) -> None:
        self._wanted = False
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def attach(self, child: subprocess.Popen[bytes]) -> None:
        """Name the child; a request that came before it goes to it now."""
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # one between these lines would go twice
        self._child = child
        if self._wanted:
            child.send_signal(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if not self._wanted and self._child:
            self._child.send_signal(signal.SIGTERM)
        self._wanted = True


def run(folder: Path, command: list[str]) -> None:
    """Run ``command`` to its end and write ``exit.json`` into ``folder`` in one step."""
    forwarder = _Forwarder()
    code, error = None, None
    before = oom_kills(Path("/"))
    aside = folder / f".{EXIT_NAME}.partial"
    with suppress(OSError):  # full already: perhaps there is room in the end
        _put(aside, b" " * _NOTE_BYTES)
    try:
        child = subprocess.Popen(command)
        forwarder.attach(child)
        code = child.wait()
    except OSError as problem:
        error = f"cannot start {command[0]}: {problem.strerror}"
    ended = time.monotonic()
    _write(aside, code, error, oom_kills(Path("/")) - before, ended)
    aside.replace(folder / EXIT_NAME)


def oom_kills(root: Path) -> int:
    """The highest count of processes that a kernel below ``root`` has ended for want of memory."""
    found = [0]
    for place in _OOM_COUNTERS:
        try:
            lines = (root / place).read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            continue  # another kernel, or none of our business
        found += [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    return max(found)


def _write(aside: Path, code: int | None, error: str | None, killed: int, monotonic: float) -> None:
    ended = code is not None and code < 0
    note = {
        "code": None if ended else code,
        "signal": -code if ended and code is not None else None,
        "error": error,
        "ended_at": datetime.now(UTC).isoformat(),
        "monotonic": monotonic,
        "pid": os.getpid(),
        "oom_kills": max(0, killed),
    }
    raw = json.dumps(note).encode()
    while True:
        try:
            return _put(aside, raw.ljust(_NOTE_BYTES))
        except OSError as problem:
            if problem.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
        time.sleep(_ROOM_SECONDS)  # how it ended is told once there is room for it


def _put(path: Path, content: bytes) -> None:
    """Write over what is there, in its own place on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        written = 0
        while written < len(content):
            written += file.write(content[written:])
        os.fsync(file.fileno())


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[3:])
