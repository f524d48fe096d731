"""The server that an earlier controller left behind: remembered by process id, ended for sure."""

import os
import signal
import subprocess
import time
from pathlib import Path

import structlog

from st_shared.durable import write_whole

log = structlog.get_logger(__name__)

_PID_FILE = "valkey.pid"
_PATIENCE_SECONDS = 5.0


def remember(folder: Path, pid: int) -> None:
    """Note that ``pid`` serves ``folder``."""
    write_whole(folder / _PID_FILE, f"{pid}\n")


def forget(folder: Path) -> None:
    """Note that nobody serves ``folder``."""
    (folder / _PID_FILE).unlink(missing_ok=True)


def end_leftover(folder: Path) -> None:
    """End a server that still serves ``folder``; gently, then not.

    Only the holder of the data folder's lock may call this. The process is recognised by its
    command line, because process ids are used again.
    """
    pid = _remembered(folder)
    if pid is None or not _serves(pid, folder):
        return
    log.warning("ending the server that an earlier controller left behind", pid=pid)
    for order in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, order)
        except ProcessLookupError:
            return
        if _is_gone(pid, folder):
            return
    raise RuntimeError(f"process {pid} still serves {folder} and cannot be ended")


def _remembered(folder: Path) -> int | None:
    try:
        return int((folder / _PID_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _is_gone(pid: int, folder: Path) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if not _serves(pid, folder):
            return True
        time.sleep(0.02)
    return False


def _serves(pid: int, folder: Path) -> bool:
    return str(folder) in _command_line(pid)


def _command_line(pid: int) -> str:
    """How ``pid`` was started; empty: it is gone. A zombie has no command line any more."""
    proc = Path("/proc")
    if proc.is_dir():
        try:
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, UnicodeDecodeError):
            return ""
    listed = subprocess.run(
        ["/bin/ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False
    )
    return listed.stdout
