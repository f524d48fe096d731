"""What this machine has: accelerators where there are some, else shares of its processors."""

import os
import platform
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil

from st_shared.protocol.worker import Condition, Inventory, Slot
from st_worker.accelerators.probe import GIB, Device
from st_worker.accelerators.registry import Found
from st_worker.model_cache import cached_models


def take_inventory(state_dir: Path, found: Found) -> Inventory:
    """Slots, memory, disk and stored models of this machine."""
    disk = shutil.disk_usage(state_dir)
    return Inventory(
        hostname=socket.gethostname()[:253],
        slots=slots_of(found),
        cpus=usable_cpus(),
        memory_gb=round(psutil.virtual_memory().total / GIB, 2),
        disk_free_gb=round(disk.free / GIB, 2),
        disk_total_gb=round(disk.total / GIB, 2),
        platform=platform.platform()[:200],
        cached_models=cached_models(os.environ),
        condition=Condition(warnings=found.warnings),
    )


def slots_of(found: Found) -> list[Slot]:
    """One slot a device, numbered in their order."""
    devices: Sequence[Device] = found.devices
    return [
        Slot(
            index=index,
            accelerator=device.name[:120],
            memory_gb=device.memory_gb,
            uuid=device.uuid,
            vendor=found.probe.vendor,
            driver=device.driver,
            compute_capability=device.compute_capability,
        )
        for index, device in enumerate(devices)
    ]


def usable_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def disk_free_gb(folder: Path) -> float:
    """Free space of the disk that holds ``folder``, GiB."""
    return round(shutil.disk_usage(folder).free / GIB, 2)
