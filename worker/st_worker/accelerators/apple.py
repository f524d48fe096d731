"""The GPU of an Apple Silicon machine (Metal, in PyTorch ``mps``), asked without torch."""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence

import psutil

from st_shared.protocol.worker import Vendor
from st_worker.accelerators.probe import GIB, Device, DeviceUse, ProbeFailed

_DISPLAYS = ("system_profiler", "SPDisplaysDataType", "-json")
_MEMORY = ("sysctl", "-n", "hw.memsize")
_SECONDS = 30.0
_PART = 0.75
"""Of the unified memory that Metal lets one process keep (its recommended working set)."""


class AppleProbe:
    """Asks ``system_profiler`` and ``sysctl`` through ``ask``, which runs a command."""

    vendor: Vendor = "apple"

    def __init__(self, ask: Callable[[Sequence[str]], str], release: str) -> None:
        self._ask, self._release = ask, release

    @classmethod
    def open(cls) -> "AppleProbe | None":
        """The probe; none on other machines."""
        if platform.system() != "Darwin" or platform.machine() != "arm64":
            return None
        return cls(_run, platform.mac_ver()[0])

    def devices(self) -> list[Device]:
        """The one GPU; its memory is that of the machine."""
        try:
            listed = json.loads(self._ask(_DISPLAYS))["SPDisplaysDataType"]
            memory = int(self._ask(_MEMORY))
        except (ValueError, KeyError) as error:
            raise ProbeFailed("apple_answer", f"system_profiler or sysctl: {error}") from None
        metal = [each for each in listed if "spdisplays_mtlgpufamilysupport" in each]
        return [
            Device(
                name=gpu.get("sppci_model") or gpu["_name"],
                memory_gb=round(memory * _PART / GIB, 2),
                driver=f"macOS {self._release}",
                compute_capability=gpu["spdisplays_mtlgpufamilysupport"].removeprefix(
                    "spdisplays_"
                ),
            )
            for gpu in metal[:1]
        ]

    def use(self, place: int) -> DeviceUse:  # noqa: ARG002  (there is one)
        """What the machine has in use; neither load nor processes are told without root."""
        return DeviceUse(memory_used_gb=round(psutil.virtual_memory().used / GIB, 2))


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ProbeFailed("apple_command", f"{command[0]} failed: {error}") from error
    return done.stdout
