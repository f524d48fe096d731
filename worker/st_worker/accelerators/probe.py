"""The interface of all probes, and what they tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from st_shared.protocol.worker import Vendor
from st_worker.errors import WorkerError

GIB = 2**30


class ProbeFailed(WorkerError):
    """Accelerators are there, or seem to be, and cannot be asked.

    ``code`` is stable, such as ``nvidia_library``; the message says how to mend it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Device:
    """One accelerator that a slot can be made of."""

    name: str
    """As the driver gives it."""
    memory_gb: float
    uuid: str | None = None
    """By which the vendor's runtime can be told to show this device alone."""
    driver: str | None = None
    compute_capability: str | None = None
    """``9.0`` (CUDA), ``gfx942`` (ROCm), ``metal3`` (Apple)."""


@dataclass(frozen=True)
class DeviceProcess:
    """A process that computes on a device."""

    pid: int
    """In the namespace of the driver, which inside a container is the host's."""
    memory_gb: float | None = None


@dataclass(frozen=True)
class DeviceUse:
    """How busy a device is now; what cannot be measured is none."""

    utilisation: float | None = None
    """Percent."""
    memory_used_gb: float | None = None
    temperature_c: float | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    """None: this vendor's tools do not tell."""
    is_drawn_on: bool = False
    """Whether a desktop draws there, whose memory is nobody's computing."""
    lost: str | None = None
    """Why the device cannot be used at all, such as one that fell off the bus."""


def with_stand_ins(
    found: Sequence[Device | str], name: str, failed: Callable[[str], ProbeFailed]
) -> list[Device]:
    """The devices; one that does not answer, of which ``found`` says why, has a stand-in.

    So the others keep their places; ``use`` tells that it is lost, and no job gets it.

    Raises:
        ProbeFailed: none of them answers.
    """
    reasons = [each for each in found if isinstance(each, str)]
    if reasons and len(reasons) == len(found):
        raise failed(f"a GPU does not answer: {reasons[0]}")
    return [
        Device(f"{name} that does not answer", 0.0) if isinstance(each, str) else each
        for each in found
    ]


class Probe(Protocol):
    """Asks the driver of one vendor. Its calls may take long or never return: use a thread."""

    vendor: Vendor

    def devices(self) -> list[Device]:
        """Every device, in an order that stays; ``ProbeFailed`` where none of them answers."""

    def use(self, place: int) -> DeviceUse:
        """How busy the device at this place of ``devices`` is; never raises for a lost one."""
