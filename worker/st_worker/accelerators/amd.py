"""AMD accelerators through the Python module ``amdsmi``, which ROCm brings."""

from collections.abc import Callable
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

KFD = Path("/dev/kfd")
"""The device file of ROCm's kernel driver."""


class AmdProbe:
    """Asks AMD SMI; ``amdsmi`` is the module, initialised."""

    vendor: Vendor = "amd"

    def __init__(self, amdsmi: ModuleType) -> None:
        self._smi = amdsmi
        self._handles: list[Any] = list(amdsmi.amdsmi_get_processor_handles())

    @classmethod
    def open(cls, kfd: Path = KFD) -> "AmdProbe | None":
        """The probe; none where the module cannot be had or there are no devices.

        Raises:
            ProbeFailed: the driver is there, but does not answer.
        """
        if not kfd.exists():
            return None
        try:
            import amdsmi  # noqa: PLC0415  (of ROCm)
        except (ImportError, OSError, KeyError):  # it loads a library as it is imported
            return None
        return cls.over(amdsmi)

    @classmethod
    def over(cls, amdsmi: ModuleType) -> "AmdProbe | None":
        """The probe over this module."""
        try:
            amdsmi.amdsmi_init()
            probe = cls(amdsmi)
        except amdsmi.AmdSmiException as error:
            raise ProbeFailed(
                "amd_driver", f"AMD SMI: {error}; does `amd-smi list` work?"
            ) from None
        return probe if probe._handles else None

    def devices(self) -> list[Device]:
        """Every GPU, in the order of the bus; one that is lost keeps its place.

        Raises:
            ProbeFailed: none of them answers.
        """
        found: list[Device | str] = []
        for handle in self._handles:
            try:
                found.append(self._device(handle))
            except self._smi.AmdSmiException as error:
                found.append(str(error))
        return with_stand_ins(
            found,
            "AMD GPU",
            lambda why: ProbeFailed("amd_device", f"{why}; does `amd-smi list` work?"),
        )

    def _device(self, handle: Any) -> Device:
        smi = self._smi
        asic = smi.amdsmi_get_gpu_asic_info(handle)
        memory = smi.amdsmi_get_gpu_memory_total(handle, smi.AmdSmiMemoryType.VRAM)
        numbers = self._told(smi.amdsmi_get_gpu_enumeration_info, handle) or {}
        driver = self._told(smi.amdsmi_get_gpu_driver_info, handle) or {}
        return Device(
            name=_known(asic["market_name"]) or "AMD GPU",
            memory_gb=round(memory / GIB, 2),
            uuid=_known(numbers.get("hip_uuid")) or _by_serial(asic["asic_serial"]),
            driver=_known(driver.get("driver_version")),
            compute_capability=_known(asic["target_graphics_version"]),
        )

    def use(self, place: int) -> DeviceUse:
        """How busy one is."""
        smi, handle = self._smi, self._handles[place]
        try:
            used = smi.amdsmi_get_gpu_memory_usage(handle, smi.AmdSmiMemoryType.VRAM) / GIB
        except smi.AmdSmiException as error:
            return DeviceUse(lost=f"the driver says: {error}")
        activity = self._told(smi.amdsmi_get_gpu_activity, handle) or {}
        temperature = self._told(
            smi.amdsmi_get_temp_metric,
            handle,
            smi.AmdSmiTemperatureType.JUNCTION,
            smi.AmdSmiTemperatureMetric.CURRENT,
        )
        processes = self._told(smi.amdsmi_get_gpu_process_list, handle)
        return DeviceUse(
            utilisation=_number(activity.get("gfx_activity")),
            memory_used_gb=round(used, 2),
            temperature_c=_number(temperature),
            processes=None
            if processes is None
            else tuple(
                DeviceProcess(each["pid"], round(each["memory_usage"]["vram_mem"] / GIB, 2))
                for each in processes
            ),
        )

    def _told(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or none where this device or driver does not know."""
        try:
            return ask(*arguments)
        except self._smi.AmdSmiException:
            return None


def _known(value: Any) -> str | None:
    """What AMD SMI tells as ``N/A`` is none."""
    return str(value) if value not in {None, "", "N/A"} else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _by_serial(serial: str) -> str | None:
    """The name that ROCr gives a device: ``GPU-`` and its unique id, 16 hexadecimal digits."""
    if not _known(serial) or not int(serial, 16):
        return None
    return f"GPU-{int(serial, 16):016x}"
