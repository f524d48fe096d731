"""Shares of the processors and the memory of a host, where there is no accelerator."""

import psutil

from st_shared.protocol.worker import Vendor
from st_worker.accelerators.probe import GIB, Device, DeviceUse


class CpuProbe:
    """``shares`` equal slots; they all tell how busy the whole host is."""

    vendor: Vendor = "cpu"

    def __init__(self, shares: int) -> None:
        self._shares = shares

    def devices(self) -> list[Device]:
        """The shares."""
        memory = round(psutil.virtual_memory().total / GIB / self._shares, 2)
        return [Device(name="cpu", memory_gb=memory)] * self._shares

    def use(self, place: int) -> DeviceUse:
        """The load since the last look at the first share; others use the host without harm."""
        busy = psutil.cpu_percent(interval=None) if place == 0 else self._busy
        self._busy = busy
        used = psutil.virtual_memory().used / GIB / self._shares
        return DeviceUse(utilisation=busy, memory_used_gb=round(used, 2))

    _busy: float | None = None
