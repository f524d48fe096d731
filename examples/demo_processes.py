"""Processes of the demo: started in groups of their own, and none left behind."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

LOG_LINES = 25
"""Lines of a log that are shown when its process fails."""


class DemoError(Exception):
    """Why the demo cannot go on, in words for the person who runs it."""


class Child:
    """A background process that writes to a log file and leads a process group."""

    def __init__(
        self, name: str, command: list[str | Path], log: Path, env: dict[str, str]
    ) -> None:
        self.name, self.log = name, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the process and of its group."""
        return self._process.pid

    def wait_until(self, is_ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Block until ``is_ready``; ``DemoError`` with the log's end when it takes too long."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            self.ensure_running()
            if time.monotonic() > deadline:
                raise DemoError(f"{what} took more than {seconds:.0f} s:\n{self.tail()}")
            time.sleep(0.1)

    def ensure_running(self) -> None:
        """``DemoError`` with the log's end when the process is gone."""
        code = self._process.poll()
        if code is not None:
            raise DemoError(f"{self.name} ended with code {code}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of the log, and where the rest is."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([*(f"  {line}" for line in lines[-LOG_LINES:]), f"  (in {self.log})"])

    def stop(self, seconds: float = 20) -> str:
        """End the process and all that it started; tells how it went."""
        family = dict(_family(self.pid))
        how = self._ask(seconds)
        left = [pid for pid, born in family.items() if _born(pid) == born]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        rest = f", killed {len(left)} of its processes" if left else ""
        return f"{self.name} (pid {self.pid}) {how}{rest}"

    def _ask(self, seconds: float) -> str:
        if self._process.poll() is not None:
            return "had ended"
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            return f"was killed after {seconds:.0f} s"
        return "stopped"


def remember(path: Path, children: list[Child]) -> None:
    """Write down what runs, so that a later demo finds it even if this one is killed."""
    entries = [
        {"name": child.name, "pid": child.pid, "born": _born(child.pid)} for child in children
    ]
    path.write_text(json.dumps(entries), encoding="utf-8")


def still_running(path: Path) -> list[tuple[str, int]]:
    """Name and id of what ``remember`` wrote down and is running yet."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never written, or cut off by a crash
        return []
    return [
        (entry["name"], entry["pid"])
        for entry in entries
        if _born(entry["pid"]) == entry["born"] and is_alive(entry["pid"])
    ]


def is_alive(pid: int) -> bool:
    """Whether a process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _family(ancestor: int) -> Iterator[tuple[int, str]]:
    """Descendants of a process with the moment of their birth, as Linux tells them."""
    if not Path("/proc/self/stat").exists():
        return
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = list(parents.get(ancestor, []))
    while waiting:
        pid = waiting.pop()
        waiting += parents.get(pid, [])
        if born := _born(pid):
            yield pid, born


def _born(pid: int) -> str | None:
    """When a living process began, in ticks since boot: an id may come to another process."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def _stat(pid: int) -> list[str] | None:
    """Fields of ``/proc/PID/stat`` from the state on (proc(5), field 3)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
