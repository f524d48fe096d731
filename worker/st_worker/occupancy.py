"""Whether somebody who is no job of ours uses an accelerator."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import psutil

from st_shared.protocol.worker import BusySlot
from st_worker.accelerators.probe import DeviceProcess, DeviceUse

ATTEMPT_VARIABLE = "ST_ATTEMPT_ID"
"""Every process of an attempt has it in its environment, however it has left its family."""


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _name(pid: int) -> str:
    """The name of a program; its arguments are nobody's business."""
    try:
        name = psutil.Process(pid).name()
    except psutil.Error:
        return "not visible from here"
    return name.encode("ascii", "replace").decode()[:40]


@dataclass(frozen=True)
class Ours:
    """What this agent runs at one moment."""

    supervisors: frozenset[int] = frozenset()
    """Each leads the session of an attempt."""
    attempts: frozenset[str] = frozenset()
    """Ids of the attempts that run or are being reported."""
    slots: frozenset[int] = frozenset()
    """What they hold, or held a moment ago: a driver frees memory with a delay."""

    def owns(self, pid: int) -> bool:
        """Whether a process is this agent's, or of an attempt that it runs or took over."""
        if pid == os.getpid() or _session(pid) in self.supervisors:
            return True
        try:
            process = psutil.Process(pid)
            if any(parent.pid in self.supervisors for parent in process.parents()):
                return True
            return process.environ().get(ATTEMPT_VARIABLE) in self.attempts
        except psutil.Error:
            return False


@dataclass(frozen=True)
class Judge:
    """Says of a slot's use whether it is somebody else's."""

    memory_gb: float
    """More than this in use on a slot that holds no job of ours is somebody's, who cannot be
    seen: from inside a container, or with tools that name no processes."""
    exists: Callable[[int], bool] = field(default=psutil.pid_exists)
    name: Callable[[int], str] = field(default=_name)

    def busy(self, index: int, use: DeviceUse, ours: Ours, *, is_gpu: bool) -> BusySlot | None:
        """Why a slot is not to be offered; none: it is free of others."""
        if use.lost:
            return BusySlot(index=index, code="lost", message=use.lost[:300])
        if not is_gpu:
            return None
        if others := self._others(index, use, ours):
            return BusySlot(index=index, code="foreign_process", message=self._said(others))
        used = use.memory_used_gb
        is_unseen = not use.processes and not use.is_drawn_on
        if index not in ours.slots and is_unseen and (used or 0) > self.memory_gb:
            said = f"{used:.0f} GiB of its memory are in use, by nobody that can be seen from here"
            return BusySlot(index=index, code="foreign_memory", message=said)
        return None

    def _others(self, index: int, use: DeviceUse, ours: Ours) -> list[DeviceProcess]:
        """Who computes there and should not."""
        processes = use.processes or ()
        if index not in ours.slots:
            # Nor an attempt of ours, which holds another: it was started when the devices had other
            # numbers, or takes what it was not given.
            return [each for each in processes if each.pid != os.getpid()]
        # A pid that is not to be seen here may be our own by its number outside a container.
        return [each for each in processes if not ours.owns(each.pid) and self.exists(each.pid)]

    def _said(self, others: Collection[DeviceProcess]) -> str:
        said = []
        for each in sorted(others, key=lambda each: each.pid)[:4]:
            name = self.name(each.pid)
            # Rounded, so that what is told changes seldom.
            memory = "" if each.memory_gb is None else f", {each.memory_gb:.0f} GiB"
            said.append(f"process {each.pid} ({name}){memory}")
        more = f" and {len(others) - 4} more" if len(others) > 4 else ""
        return ("; ".join(said) + more)[:300]
