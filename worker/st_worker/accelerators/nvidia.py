"""NVIDIA accelerators through NVML (the package ``nvidia-ml-py``); MIG instances are devices."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from st_shared.protocol.worker import Vendor
from st_worker.accelerators.probe import (
    GIB,
    Device,
    DeviceProcess,
    DeviceUse,
    ProbeFailed,
    with_stand_ins,
)

_DRIVER = Path("/proc/driver/nvidia/version")
"""There while the kernel module is loaded."""


class NvidiaProbe:
    """Asks NVML; ``nvml`` is the module ``pynvml``, initialised."""

    vendor: Vendor = "nvidia"

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        self._handles = self._all_handles()

    @classmethod
    def open(cls, driver: Path = _DRIVER) -> "NvidiaProbe | None":
        """The probe; none on a host without NVIDIA's driver or devices.

        Raises:
            ProbeFailed: the driver is loaded, but cannot be asked.
        """
        try:
            import pynvml  # noqa: PLC0415  (of the extra "cuda")
        except ImportError:
            if driver.exists():
                raise ProbeFailed(
                    "nvidia_library",
                    "this host has NVIDIA's driver, but the package nvidia-ml-py is missing: "
                    "pip install 'st-fleet[cuda]'",
                ) from None
            return None
        return cls.over(pynvml, is_here=driver.exists())

    @classmethod
    def over(cls, nvml: ModuleType, *, is_here: bool) -> "NvidiaProbe | None":
        """The probe over these bindings; ``is_here``: whether the kernel module is loaded."""
        try:
            nvml.nvmlInit()
            probe = cls(nvml)
        except nvml.NVMLError as error:
            if is_here:
                raise ProbeFailed("nvidia_driver", _mend(str(error))) from error
            return None
        return probe if probe._handles else None

    def devices(self) -> list[Device]:
        """Every GPU or, of one that is cut up, its MIG instances; one that is lost keeps its place.

        Raises:
            ProbeFailed: none of them answers.
        """
        driver = _text(self._told(self._nvml.nvmlSystemGetDriverVersion))
        found: list[Device | str] = []
        for handle, parent in self._handles:
            try:
                found.append(self._device(_answering(handle), parent, driver))
            except (self._nvml.NVMLError, _Lost) as error:
                found.append(str(error))
        return with_stand_ins(
            found, "NVIDIA GPU", lambda why: ProbeFailed("nvidia_device", _mend(why))
        )

    def _device(self, handle: Any, parent: Any, driver: str | None) -> Device:
        nvml = self._nvml
        memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
        name, uuid = nvml.nvmlDeviceGetName(handle), nvml.nvmlDeviceGetUUID(handle)
        capability = self._told(nvml.nvmlDeviceGetCudaComputeCapability, parent)
        return Device(
            name=_text(name) or "NVIDIA GPU",
            memory_gb=round(memory / GIB, 2),
            uuid=_text(uuid),
            driver=driver,
            compute_capability="{}.{}".format(*capability) if capability else None,
        )

    def use(self, place: int) -> DeviceUse:
        """How busy one is; instances and virtual GPUs tell less."""
        nvml = self._nvml
        handle, parent = self._handles[place]
        try:
            used = nvml.nvmlDeviceGetMemoryInfo(_answering(handle)).used / GIB
        except (nvml.NVMLError, _Lost) as error:
            return DeviceUse(lost=f"the driver says: {error}")
        rates = self._told(nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = self._told(nvml.nvmlDeviceGetTemperature, parent, nvml.NVML_TEMPERATURE_GPU)
        # A desktop, which draws as well, does not count.
        drawing = self._told(nvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or ()
        computing = self._told(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        return DeviceUse(
            utilisation=None if rates is None else float(rates.gpu),
            memory_used_gb=round(used, 2),
            temperature_c=None if temperature is None else float(temperature),
            processes=None if computing is None else _alone(computing, drawing),
            is_drawn_on=bool(drawing),
        )

    def _all_handles(self) -> list[tuple[Any, Any]]:
        """Every device, with the GPU that it is or is part of; ``_Lost`` where one has none."""
        nvml = self._nvml
        found: list[tuple[Any, Any]] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            except nvml.NVMLError as error:  # off the bus, or this user may not have it
                found.append((_Lost(str(error)), None))
            else:
                found += [(part, gpu) for part in self._instances(gpu) or [gpu]]
        return found

    def _instances(self, gpu: Any) -> list[Any]:
        nvml = self._nvml
        mode = self._told(nvml.nvmlDeviceGetMigMode, gpu)
        if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        found = []
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
            with suppress(nvml.NVMLError):  # a place that holds no instance
                found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
        return found

    def _told(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or none where this device or driver does not know."""
        try:
            return ask(*arguments)
        except self._nvml.NVMLError:
            return None


class _Lost(Exception):
    """Stands in the place of the handle of a GPU that the driver does not give."""


def _answering(handle: Any) -> Any:
    """The handle; ``_Lost`` where there is none."""
    if isinstance(handle, _Lost):
        raise handle
    return handle


def _alone(computing: Iterable[Any], drawing: Iterable[Any]) -> tuple[DeviceProcess, ...]:
    """Who computes and does not draw."""
    drawers = {process.pid for process in drawing}
    return tuple(
        DeviceProcess(process.pid, _gib(process.usedGpuMemory))
        for process in computing
        if process.pid not in drawers
    )


def _mend(said: str) -> str:
    return f"{said}; `nvidia-smi` should work first: load or reinstall the driver, or restart"


def _gib(number: int | None) -> float | None:
    return None if number is None else round(number / GIB, 2)


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
