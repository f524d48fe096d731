"""The process of a trainer or script seen from outside: a session that a supervisor leads.

The session, not the process, is what is stopped: loaders and whatever else the trainer started
go with it, and so does what has left the session, as torchrun's processes do: all of them carry
the attempt's folder in their environment. A supervisor is recognised by its command line, which
holds the attempt's folder and so belongs to no other process. Once it is gone, its session is what
began after it did on the same boot: pids are given out again.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel

from st_worker.supervise import EXIT_NAME

_SUPERVISOR = "st_worker.supervise"
_MARK = "ST_ATTEMPT_FOLDER"
"""Variable that everything of an attempt is started with, and hands on."""


_CLOCK_SECONDS = 2.0
"""By how much the start of a process may seem to move when clocks are set."""


class TrainerExit(BaseModel):
    """How the trainer ended; all fields empty: it vanished together with its supervisor."""

    code: int | None = None
    signal: int | None = None
    error: str | None = None
    monotonic: float | None = None
    """When it ended, by ``time.monotonic``; none: nobody was there to note it."""
    oom_kills: int = 0
    """Processes that the kernel ended for want of memory while it ran, as far as can be told."""


class TrainerProcess:
    """A trainer that was started here, or by an earlier agent on the same folder."""

    def __init__(
        self,
        run_dir: Path,
        pid: int,
        child: "subprocess.Popen[bytes] | None" = None,
        *,
        started: float | None = None,
    ) -> None:
        self.pid = pid
        self.started = _started(pid) if started is None else started
        """Seconds since 1970 at which the supervisor began; none: it is gone, and nobody knows."""
        self._run_dir, self._child = run_dir, child

    @classmethod
    def start(
        cls, run_dir: Path, command: Sequence[str], environment: Mapping[str, str], output: Path
    ) -> Self:
        """Start ``command`` under a supervisor in a session of its own; it outlives this agent."""
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", _SUPERVISOR, str(run_dir), "--", *command],
                cwd=run_dir,
                env={**environment, _MARK: str(run_dir)},
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        return cls(run_dir, child.pid, child)

    @classmethod
    def find(cls, run_dir: Path) -> Self | None:
        """The running supervisor of ``run_dir``, whoever started it."""
        for pid in psutil.pids():
            if _supervises(pid, run_dir):
                return cls(run_dir, pid)
        return None

    @classmethod
    def ended(cls, run_dir: Path) -> Self | None:
        """The supervisor of ``run_dir`` that has left its note, whoever started it."""
        note = run_dir / EXIT_NAME
        return cls(run_dir, json.loads(note.read_bytes())["pid"]) if note.exists() else None

    @property
    def is_child(self) -> bool:
        """Whether this agent started it, and the kernel tells at once whether it runs.

        Of another's, files of that process are read, which may take as long as it likes.
        """
        return self._child is not None

    def exit(self) -> TrainerExit | None:
        """How it ended; none while it runs."""
        if self._is_alive():
            return None
        note = self._run_dir / EXIT_NAME  # written before the supervisor ends
        return (
            TrainerExit.model_validate_json(note.read_bytes()) if note.exists() else TrainerExit()
        )

    def ask(self) -> None:
        """Ask the trainer, not its children, to stop at a checkpoint."""
        if self._is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the processes of the session at once; the supervisor last, since it reaps."""
        members = self.members()
        for pid in [pid for pid in members if pid != self.pid] or members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def members(self) -> list[int]:
        """Pids that have not ended: the supervisor, the trainer, and whatever they started.

        Also of those that have left the session, or whose parents are gone.
        """
        found = {pid for pid in psutil.pids() if _is_marked(pid, self._run_dir)}
        is_strangers = (
            psutil.pid_exists(self.pid) and not self._is_alive() and not _is_zombie(self.pid)
        )
        if not is_strangers:  # else no process of the session is left: the pid is another's now
            found |= {pid for pid in psutil.pids() if self._leads(pid)}
            found |= _descendants(self.pid)
        return [pid for pid in found if not _is_zombie(pid)]

    def _leads(self, pid: int) -> bool:
        """Whether a process is of the supervisor's session, and not of one that had its pid."""
        if _session(pid) != self.pid:
            return False
        if self.started is None:
            return True
        begun = _started(pid)
        earliest = self.started - _CLOCK_SECONDS
        return psutil.boot_time() < self.started + _CLOCK_SECONDS and (
            begun is None or begun >= earliest
        )

    def _is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return _supervises(self.pid, self._run_dir)


def _started(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def _supervises(pid: int, run_dir: Path) -> bool:
    try:
        arguments = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return arguments[1:4] == ["-m", _SUPERVISOR, str(run_dir)]


def _is_marked(pid: int, run_dir: Path) -> bool:
    """Whether a process was started for the attempt in ``run_dir``; others' are not told."""
    try:
        return psutil.Process(pid).environ().get(_MARK) == str(run_dir)
    except (psutil.Error, OSError):
        return False


def _descendants(pid: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
