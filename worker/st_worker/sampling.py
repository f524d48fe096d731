"""How busy this host is, measured beside the agent: no driver or disk delays a heartbeat."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from st_shared.protocol.worker import (
    BusySlot,
    Condition,
    Inventory,
    ProbeWarning,
    Slot,
    SlotUse,
    Usage,
)
from st_worker.accelerators.cpu import CpuProbe
from st_worker.accelerators.probe import DeviceUse, Probe, ProbeFailed
from st_worker.inventory import disk_free_gb
from st_worker.model_cache import cached_models
from st_worker.occupancy import Judge, Ours
from st_worker.room import Room

log = structlog.get_logger(__name__)

MODELS_SECONDS = 60.0
"""Between two looks for pretrained models, which jobs fetch."""

Measured = tuple[Usage, list[BusySlot], float | None] | Exception


@dataclass(frozen=True)
class Sample:
    """What a heartbeat tells of the host."""

    usage: Usage | None
    """None: nothing new was measured."""
    condition: Condition
    models: list[str] | None
    """Pretrained models on the disk; none: not looked for yet."""


class Sampler:
    """Measures in a daemon thread, one at a time; whoever asks waits for ``deadline`` at most."""

    def __init__(
        self,
        probe: Probe,
        slots: Sequence[Slot],
        folder: Path,
        judge: Judge,
        *,
        room: Room | None = None,
        warnings: Sequence[ProbeWarning] = (),
        patience: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe, self._slots, self._folder, self._judge = probe, slots, folder, judge
        self._warnings, self._patience, self._clock = list(warnings), patience, clock
        self.room = room or Room(folder, 0.0)
        """Whether the disk has room for a job; claims ask it too."""
        self._running: asyncio.Future[Measured] | None = None
        self._began = 0.0
        self._busy: list[BusySlot] = []
        self._content_room: float | None = None
        self._trouble: ProbeWarning | None = None
        self._held_last: frozenset[int] = frozenset()
        self._models: list[str] | None = None
        self._looked_at = float("-inf")

    @classmethod
    def of_processors(cls, inventory: Inventory, folder: Path, room: Room | None = None) -> Self:
        """For a host whose slots are shares of its processors."""
        slots = inventory.slots
        return cls(CpuProbe(len(slots)), slots, folder, Judge(float("inf")), room=room)

    async def take(self, ours: Ours, deadline: float) -> Sample:
        """What is measured within ``deadline`` seconds, else what was known before."""
        if self._running is None:
            self._running, self._began = self._start(ours), self._clock()
        running = self._running
        await asyncio.wait({running}, timeout=deadline)
        is_new = running.done() and running is self._running  # else another caller has taken it
        usage = self._finished(running) if is_new else None
        if self._running is not None and self._clock() - self._began >= self._patience:
            self._give_up_on(ours)
        warnings = [*self._warnings, *([self._trouble] if self._trouble else [])]
        condition = Condition(
            busy=self._busy, warnings=warnings, content_room_gb=self._content_room
        )
        return Sample(usage, condition, self._models)

    def _start(self, ours: Ours) -> "asyncio.Future[Measured]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Measured] = loop.create_future()
        # What was held at the last look may still be about to go.
        kept = Ours(ours.supervisors, ours.attempts, ours.slots | self._held_last)
        self._held_last = ours.slots

        def measure() -> None:
            result: Measured
            try:
                result = self._measured(kept)
            except Exception as error:  # noqa: BLE001  (told by the next heartbeat)
                result = error
            try:
                loop.call_soon_threadsafe(_settle, future, result)
            except RuntimeError:
                log.debug("sample.late")  # the agent has ended meanwhile

        threading.Thread(target=measure, name="sample", daemon=True).start()
        return future

    def _measured(self, ours: Ours) -> tuple[Usage, list[BusySlot], float | None]:
        uses, busy = [], []
        for slot in self._slots:
            use = self._probe.use(slot.index)
            uses.append(_told(slot.index, use))
            found = self._judge.busy(slot.index, use, ours, is_gpu=slot.vendor in {"nvidia", "amd"})
            if found:
                busy.append(found)
        busy += self._without_room({each.index for each in busy})
        if self._clock() - self._looked_at >= MODELS_SECONDS:
            self._models, self._looked_at = cached_models(os.environ), self._clock()
        usage = Usage(slots=uses, disk_free_gb=disk_free_gb(self._folder))
        return usage, busy, self.room.for_contents()

    def _without_room(self, known: Collection[int]) -> list[BusySlot]:
        """On a full disk every slot is withdrawn of which nothing else is said."""
        lack = self.room.lack()
        if lack is None:
            return []
        return [
            BusySlot(index=slot.index, code="disk_full", message=lack)
            for slot in self._slots
            if slot.index not in known
        ]

    def _finished(self, running: "asyncio.Future[Measured]") -> Usage | None:
        self._running = None
        measured = running.result()
        if isinstance(measured, Exception):  # a driver's library may raise anything
            code = measured.code if isinstance(measured, ProbeFailed) else "probe_failed"
            said = f"{type(measured).__name__}: {measured}"
            self._trouble = ProbeWarning(code=code, message=said[:500])
            log.warning("sample.failed", why=said)
            return None
        self._trouble = None
        usage, self._busy, self._content_room = measured
        return usage

    def _give_up_on(self, ours: Ours) -> None:
        """The driver hangs: nothing is offered where it would be needed."""
        seconds = self._patience
        said = f"the driver has not answered for more than {seconds:g} s: restart the host"
        if self._trouble is None:
            log.warning("sample.no_answer", seconds=seconds)
        self._trouble = ProbeWarning(code=f"{self._probe.vendor}_no_answer", message=said)
        self._busy = [
            BusySlot(index=slot.index, code="no_answer", message=said)
            for slot in self._slots
            if slot.vendor != "cpu" and slot.index not in ours.slots
        ]


def _settle(future: "asyncio.Future[Measured]", result: Measured) -> None:
    if not future.done():
        future.set_result(result)


def _told(index: int, use: DeviceUse) -> SlotUse:
    return SlotUse(
        index=index,
        utilisation=None if use.utilisation is None else min(100.0, max(0.0, use.utilisation)),
        memory_used_gb=use.memory_used_gb,
        temperature_c=use.temperature_c,
    )
