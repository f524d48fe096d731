"""Starts one training as several processes, on this host or on several: torchrun's launcher.

Beside what ``torchrun`` does: it ends with the exit code of the process that failed first and said
most, and a request to stop goes to every process without a deadline. When to kill is for whoever
asked; torchrun by itself would after 30 s, in the middle of a checkpoint.
"""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from uuid import uuid4

import psutil
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from st_shared.protocol.journal import ExitCode

PROGRAM = ("-m", "st_trainer")
_POLL_SECONDS = 0.1
_MEET_SECONDS = 300
"""How long hosts wait for one another at the start."""
_ENDED_BY_LAUNCHER = -signal.SIGTERM
_STOPPED = {_ENDED_BY_LAUNCHER, ExitCode.PEER_LOST, ExitCode.PREEMPTED}
"""How processes end that were all asked to stop, some of them too early."""


@dataclass(frozen=True)
class Hosts:
    """The hosts of one training, and which of them this is."""

    count: int = 1
    rank: int = 0
    rendezvous: str | None = None
    """``host:port`` of the first; none where there is only one host."""


def launch(processes: int, hosts: Hosts, arguments: Sequence[str]) -> int:
    """Run ``st-train ARGUMENTS`` as ``processes`` processes here; the exit code of the whole."""
    with tempfile.TemporaryDirectory(prefix="st-train-") as logs:
        launcher = _Launcher(_config(processes, hosts, logs), arguments)
        return launcher.run()


class _Launcher:
    """Torchrun's launcher in a thread of its own, where it takes no signals."""

    def __init__(self, config: LaunchConfig, arguments: Sequence[str]) -> None:
        self._config, self._arguments = config, arguments
        self._code: int = ExitCode.CRASHED
        self._stopping = False
        self._asked: set[int] = set()

    def run(self) -> int:
        """Wait for the end, and hand requests to stop on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)
        thread = threading.Thread(target=self._launch, name="launcher", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            if self._stopping:
                self._ask()
        return self._code

    def _launch(self) -> None:
        try:
            elastic_launch(self._config, sys.executable)(*PROGRAM, *self._arguments)
        except ChildFailedError as error:
            failures = sorted(error.failures.values(), key=lambda each: each.timestamp)
            codes = [failure.exitcode for failure in failures]
            self._code = telling(codes, asked=self._stopping)
        except (RendezvousError, DistError) as error:
            said = f"the hosts did not meet within {_MEET_SECONDS} s: {error}"
            sys.stderr.write(f"st-train launch: {said}\n")
            self._code = ExitCode.PREEMPTED if self._stopping else ExitCode.PEER_LOST
        else:
            self._code = ExitCode.SUCCEEDED

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _ask(self) -> None:
        """Ask every process once; a second time it would end at once."""
        for child in psutil.Process().children():
            if child.pid not in self._asked:
                self._asked.add(child.pid)
                with suppress(psutil.NoSuchProcess):
                    child.terminate()


def telling(codes: Iterable[int], *, asked: bool = False) -> int:
    """The exit code that says most of why a group of processes failed, the first where equal.

    A process that found a cause says more than one that crashed or was killed (a negative code: the
    signal), and that more than one that only missed another, or was ended because of it.

    ``asked``: they were to stop. One that was asked before it could take a signal is ended by it,
    and others miss it: that is a stop as well.
    """
    codes = list(codes)
    if asked and _ENDED_BY_LAUNCHER in codes and _STOPPED.issuperset(codes):
        return ExitCode.PREEMPTED
    found = min(codes, key=_silence, default=ExitCode.CRASHED)
    return found if found >= 0 else 128 - found


def _silence(code: int) -> int:
    """How little an exit code says."""
    known = {ExitCode.CRASHED: 1, ExitCode.PEER_LOST: 3, _ENDED_BY_LAUNCHER: 4}
    return known.get(code, 0 if code > 0 else 2)


def _config(processes: int, hosts: Hosts, logs: str) -> LaunchConfig:
    several = hosts.count > 1
    return LaunchConfig(
        min_nodes=hosts.count,
        max_nodes=hosts.count,
        nproc_per_node=processes,
        run_id=f"st-{os.getpid()}-{uuid4().hex[:8]}" if not several else "st-train",
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=hosts.rendezvous or "localhost:0",
        rdzv_configs={"rank": hosts.rank, "timeout": _MEET_SECONDS},
        max_restarts=0,
        monitor_interval=_POLL_SECONDS,
        local_addr=None if several else "localhost",
        logs_specs=DefaultLogsSpecs(log_dir=str(Path(logs))),
    )
