"""Runs one command and leaves a note of how it ended: ``python -m st_worker.supervise DIR -- CMD``.

It leads the session of the trainer and outlives a killed agent, so that the exit code is known to
the next one. It imports the standard library alone, to stay small beside the trainer.
"""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

EXIT_NAME = "exit.json"
"""``{"code": int or null, "signal": int or null, "error": text or null, "ended_at": RFC 3339,
"pid": int, "oom_kills": int}``, the pid being the supervisor's."""

_OOM_COUNTERS = (
    "proc/vmstat",
    "sys/fs/cgroup/memory.events",
    "sys/fs/cgroup/memory/memory.oom_control",
)
"""Where kernels count what they ended for want of memory: on the host, in cgroups 2 and 1."""


class _Forwarder:
    """Hands the first request to stop on to the child; the trainer takes a second as an order."""

    def __init__(self) -> None:
        self._wanted = False
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def attach(self, child: subprocess.Popen[bytes]) -> None:
        """Name the child; a request that came before it goes to it now."""
        self._child = child
        if self._wanted:
            child.send_signal(signal.SIGTERM)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if not self._wanted and self._child:
            self._child.send_signal(signal.SIGTERM)
        self._wanted = True


def run(folder: Path, command: list[str]) -> None:
    """Run ``command`` to its end and write ``exit.json`` into ``folder`` in one step."""
    forwarder = _Forwarder()
    code, error = None, None
    before = oom_kills(Path("/"))
    try:
        child = subprocess.Popen(command)
        forwarder.attach(child)
        code = child.wait()
    except OSError as problem:
        error = f"cannot start {command[0]}: {problem.strerror}"
    _write(folder / EXIT_NAME, code, error, oom_kills(Path("/")) - before)


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


def _write(path: Path, code: int | None, error: str | None, killed: int) -> None:
    ended = code is not None and code < 0
    note = {
        "code": None if ended else code,
        "signal": -code if ended and code is not None else None,
        "error": error,
        "ended_at": datetime.now(UTC).isoformat(),
        "pid": os.getpid(),
        "oom_kills": max(0, killed),
    }
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[3:])
