"""What this machine has: NVIDIA accelerators where there are some, else shares of its CPU."""

import os
import platform
import re
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import psutil

from st_shared.protocol.worker import Inventory, Slot, SlotUse
from st_worker.errors import UsageError

_GIB = 2**30


def take_inventory(state_dir: Path, slots: int | None, nvml: ModuleType | None) -> Inventory:
    """Slots, memory and disk of this machine; ``slots`` limits GPUs or counts shares of the CPU.

    Raises:
        UsageError: more GPUs are asked for than there are.
    """
    return Inventory(
        hostname=socket.gethostname()[:253],
        slots=_gpu_slots(nvml, slots) if nvml else cpu_slots(slots or 1),
        cpus=usable_cpus(),
        memory_gb=round(psutil.virtual_memory().total / _GIB, 2),
        disk_free_gb=disk_free_gb(state_dir),
        platform=platform.platform()[:200],
    )


def usable_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def disk_free_gb(folder: Path) -> float:
    """Free space of the disk that holds ``folder``, GiB."""
    return round(shutil.disk_usage(folder).free / _GIB, 2)


def cpu_slots(count: int) -> list[Slot]:
    """``count`` slots that share the memory of the host evenly."""
    share = round(psutil.virtual_memory().total / _GIB / count, 2)
    return [Slot(index=index, accelerator="cpu", memory_gb=share) for index in range(count)]


def open_nvml() -> ModuleType | None:
    """The NVML bindings, initialised; none without them, without a driver or without a device."""
    try:
        import pynvml  # noqa: PLC0415  (of the extra "cuda")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return None
    bindings: ModuleType = pynvml
    return bindings if count else None


def _gpu_slots(nvml: ModuleType, limit: int | None) -> list[Slot]:
    count = nvml.nvmlDeviceGetCount()
    if limit is not None and limit > count:
        raise UsageError(f"--slots {limit}: this machine has {count} GPUs")
    return [_gpu_slot(nvml, index) for index in range(limit or count)]


def _gpu_slot(nvml: ModuleType, index: int) -> Slot:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(device).total
    return Slot(
        index=index,
        accelerator=_text(nvml.nvmlDeviceGetName(device)),
        memory_gb=round(memory / _GIB, 2),
        uuid=_text(nvml.nvmlDeviceGetUUID(device)),
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def slot_use(slots: Sequence[Slot], nvml: ModuleType | None) -> list[SlotUse]:
    """How busy each slot is now; what cannot be measured is left out."""
    if nvml:
        return [_gpu_use(nvml, slot.index) for slot in slots]
    busy = psutil.cpu_percent(interval=None)
    used = psutil.virtual_memory().used / _GIB / len(slots)
    return [
        SlotUse(index=slot.index, utilisation=busy, memory_used_gb=round(used, 2)) for slot in slots
    ]


def _gpu_use(nvml: ModuleType, index: int) -> SlotUse:
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        return SlotUse(
            index=index,
            utilisation=nvml.nvmlDeviceGetUtilizationRates(device).gpu,
            memory_used_gb=round(nvml.nvmlDeviceGetMemoryInfo(device).used / _GIB, 2),
            temperature_c=nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
        )
    except nvml.NVMLError:
        return SlotUse(index=index)  # a virtual or a fallen device does not tell


_SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE")
_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")


def trainer_environment(
    base: Mapping[str, str], inventory: Inventory, slots: Sequence[int]
) -> dict[str, str]:
    """The environment of a trainer that may use ``slots`` alone and knows none of our secrets."""
    environment = {name: value for name, value in base.items() if not _is_ours(name)}
    mine = [slot for slot in inventory.slots if slot.index in slots]
    if all(slot.uuid is None for slot in mine):
        environment["CUDA_VISIBLE_DEVICES"] = ""
        threads = max(1, inventory.cpus * len(mine) // len(inventory.slots))
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    else:
        # By UUID: CUDA numbers devices by speed, NVML by their place on the bus.
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.uuid or "" for slot in mine)
    return environment


def script_environment(
    base: Mapping[str, str], inventory: Inventory, slots: Sequence[int]
) -> dict[str, str]:
    """The environment of a script: as a trainer's, without anything of ours or like a secret."""
    return {
        name: value
        for name, value in trainer_environment(base, inventory, slots).items()
        if not name.startswith("ST_")
        and not _SECRET_NAME.search(name.upper())
        and not _ADDRESS_WITH_PASSWORD.search(value)
    }


def _is_ours(name: str) -> bool:
    return name.startswith("ST_") and any(word in name for word in _SECRET_WORDS)
