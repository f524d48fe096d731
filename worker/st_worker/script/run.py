"""Runs a script and writes what it prints into the journal: ``python -m st_worker.script.run DIR``.

It is what the supervisor starts for a command job, in the place of a trainer. The script, with all
that it starts, is a process group of its own, which gets the request to stop. When the script has
ended, whatever it left running is ended too, detached or not. This process ends as the script did,
by exit code or by signal.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from st_shared.redaction import from_environment
from st_worker.script.allowance import Allowance
from st_worker.script.journal import ScriptJournal
from st_worker.script.lines import LineSplitter, PrintedLine
from st_worker.script.outputs import announce_outputs

JOURNAL_NAME = "journal.ndjson"
SCRIPT_NAME = "script.sh"
WORK_NAME = "work"

_PIECE_BYTES = 65_536
_LAST_PIECES = 64
"""Pieces that are still read once the script has ended: more than a pipe holds."""
_PR_SET_CHILD_SUBREAPER = 36


class _Signals:
    """Turns signals into bytes on a pipe that can be waited for together with the output."""

    def __init__(self) -> None:
        self.wants_stop = False
        self.pipe, end = os.pipe()
        for descriptor in (self.pipe, end):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._take)

    def clear(self) -> None:
        """Forget what was written, so that the next signal is seen."""
        with suppress(BlockingIOError):
            while os.read(self.pipe, _PIECE_BYTES):
                pass

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.wants_stop |= number != signal.SIGCHLD


class _Log:
    """Lines of the script on their way into the journal, as far as they are allowed."""

    def __init__(self, journal: ScriptJournal) -> None:
        self._journal = journal
        self._lines, self._allowance = LineSplitter(), Allowance(time.monotonic())

    def take(self, piece: bytes) -> None:
        """Keep the lines that ``piece`` completes."""
        for line in self._lines.feed(piece):
            self._keep(line)

    def close(self) -> None:
        """Keep the unfinished line and tell what was cut."""
        for line in self._lines.end():
            self._keep(line)
        self._tell_cut()

    def _keep(self, line: PrintedLine) -> None:
        was_spent = self._allowance.is_spent
        if self._allowance.admits(line.size, time.monotonic()):
            self._tell_cut()
            self._journal.log(line.text)
            if self._allowance.is_spent and not was_spent:
                self._journal.log("the log of this attempt is full; what follows is cut", "warning")

    def _tell_cut(self) -> None:
        if note := self._allowance.take_note():
            self._journal.log(note, "warning")


def run(folder: Path) -> int:
    """Run the script of ``folder`` to its end; its exit code comes back, negative for a signal."""
    signals, work = _Signals(), folder / WORK_NAME
    _adopt_orphans()
    with ScriptJournal(folder / JOURNAL_NAME, redactor=from_environment(os.environ)) as journal:
        script = subprocess.Popen(
            ["/bin/sh", "-e", str(folder / SCRIPT_NAME)],
            cwd=work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            bufsize=0,
        )
        assert script.stdout is not None  # noqa: S101 - it was asked for
        output, log = script.stdout.fileno(), _Log(journal)
        os.set_blocking(output, False)
        try:
            _follow(script.pid, output, signals, log)
        finally:
            _kill_group(script.pid)
            code = script.wait()
            _end_orphans()
        for _ in range(_LAST_PIECES):
            log.take(_read(output) or b"")
        log.close()
        if code == 0 or not signals.wants_stop:
            announce_outputs(work, folder, journal)
    return code


def _follow(script: int, output: int, signals: _Signals, log: _Log) -> None:
    """Keep what the script prints until it has ended, handing on one request to stop."""
    was_asked = False
    with selectors.DefaultSelector() as waiting:
        waiting.register(output, selectors.EVENT_READ)
        waiting.register(signals.pipe, selectors.EVENT_READ)
        while not _has_ended(script):
            if signals.wants_stop and not was_asked:
                was_asked = True
                os.killpg(script, signal.SIGTERM)
            ready = [key.fd for key, _ in waiting.select()]
            if signals.pipe in ready:
                signals.clear()
            if output in ready:
                piece = _read(output)
                log.take(piece or b"")
                if piece == b"":
                    waiting.unregister(output)  # closed by the script, which goes on


def _has_ended(pid: int) -> bool:
    """Whether the script is over; it is left to be reaped, so that its group keeps its number."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _kill_group(pid: int) -> None:
    """End what is left of the script's group; it is not reaped, so the number is still its own."""
    with suppress(ProcessLookupError, PermissionError):  # all gone, or some run as another user
        os.killpg(pid, signal.SIGKILL)


def _adopt_orphans() -> None:
    """Become the parent of what the script detaches from itself, so that it can be ended.

    Linux alone knows that; elsewhere, and where it is refused, detached processes stay.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_orphans() -> None:
    """End the children that are left, and theirs, which become ours as soon as these are gone."""
    spared: set[int] = set()
    while orphans := _children() - spared:
        for pid in orphans:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:  # it runs as another user
                spared.add(pid)
            else:
                os.waitpid(pid, 0)


def _children() -> set[int]:
    """Pids of the children of this process; none where the system does not list them."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except FileNotFoundError:
        return set()
    return set(map(int, listed.split()))


def _read(output: int) -> bytes | None:
    """What can be read now; none when there is nothing yet, empty at the end."""
    try:
        return os.read(output, _PIECE_BYTES)
    except BlockingIOError:
        return None


def _end_as(code: int) -> None:
    """End this process with an exit code, or by the signal of a negative one."""
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handler to take away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    _end_as(run(Path(sys.argv[1])))
