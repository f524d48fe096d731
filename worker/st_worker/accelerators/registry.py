"""Which probe fits this host: each vendor is asked in turn, and none keeps the agent waiting."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from st_shared.protocol.worker import ProbeWarning
from st_worker.accelerators.amd import AmdProbe
from st_worker.accelerators.apple import AppleProbe
from st_worker.accelerators.cpu import CpuProbe
from st_worker.accelerators.nvidia import NvidiaProbe
from st_worker.accelerators.probe import Device, Probe, ProbeFailed
from st_worker.accelerators.rocm_smi import RocmSmiProbe
from st_worker.accelerators.waiting import NoAnswer, answer_within
from st_worker.errors import UsageError

log = structlog.get_logger(__name__)

Open = Callable[[], Probe | None]

PROBES: dict[str, Open] = {
    "nvidia": NvidiaProbe.open,
    "amd": AmdProbe.open,
    "rocm_smi": RocmSmiProbe.open,
    "apple": AppleProbe.open,
}
"""In the order in which they are asked; the first that finds a device is used."""

OPEN_SECONDS = 30.0
"""The first call to a driver that keeps nothing loaded takes seconds."""

HURRIED_SECONDS = 10.0
"""Where trainings run already: the driver is loaded, and their leases do not wait."""


@dataclass(frozen=True)
class Found:
    """The probe of this host, its devices, and what was wrong on the way."""

    probe: Probe
    devices: list[Device]
    warnings: list[ProbeWarning]


def find_devices(
    slots: int | None,
    probes: dict[str, Open] | None = None,
    seconds: float = OPEN_SECONDS,
    *,
    has_joined: bool = False,
) -> Found:
    """The accelerators of this host, ``slots`` at most; else ``slots`` shares of its processors.

    A worker that ``has_joined`` lends what is left of them: one that stayed away because of a lost
    GPU would cost what runs on the others.

    Raises:
        UsageError: it has not, and more accelerators are asked for than there are.
    """
    warnings: list[ProbeWarning] = []
    for name, open_probe in (PROBES if probes is None else probes).items():
        try:
            opened = answer_within(seconds, lambda ask=open_probe: _opened(ask))  # type: ignore[misc]
        except ProbeFailed as error:
            warnings.append(_warned(error.code, str(error)))
        except NoAnswer:
            said = f"the driver did not answer within {seconds:g} s: restart the host"
            warnings.append(_warned(f"{name}_no_answer", said))
        except Exception as error:  # noqa: BLE001  (whatever a driver's library does, the agent lives)
            warnings.append(_warned(f"{name}_probe", f"{type(error).__name__}: {error}"))
        else:
            if opened is not None:
                probe, devices = opened
                if slots is not None and slots > len(devices):
                    warnings.append(_too_few(slots, len(devices), has_joined=has_joined))
                return Found(probe, devices[:slots], warnings)
    shares = CpuProbe(slots or 1)
    return Found(shares, shares.devices(), warnings)


def _opened(open_probe: Open) -> tuple[Probe, list[Device]] | None:
    probe = open_probe()
    devices = probe.devices() if probe else []
    return (probe, devices) if probe and devices else None


def _too_few(wanted: int, count: int, *, has_joined: bool) -> ProbeWarning:
    said = f"--slots {wanted}: this machine has {count} GPUs"
    if not has_joined:
        raise UsageError(said)
    return _warned("too_few", f"{said}, which are lent: mend the others, or ask for fewer")


def _warned(code: str, message: str) -> ProbeWarning:
    log.warning("probe.failed", code=code, why=message)
    return ProbeWarning(code=code[:60], message=message[:500])
