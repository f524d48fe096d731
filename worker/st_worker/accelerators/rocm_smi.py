"""AMD accelerators through the command ``rocm-smi``, where its Python module is not at hand.

It does not tell which processes compute on which device; somebody else's use shows by its memory.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from st_shared.protocol.worker import Vendor
from st_worker.accelerators.amd import KFD
from st_worker.accelerators.probe import GIB, Device, DeviceUse, ProbeFailed

Cards = dict[str, dict[str, str]]
"""``{"card0": {"GPU use (%)": "0", ...}, "system": {...}}``, as ``--json`` prints it."""

_FIXED = ("--showproductname", "--showuniqueid", "--showdriverversion", "--showmeminfo", "vram")
_NOW = ("--showuse", "--showtemp", "--showmeminfo", "vram")
_SECONDS = 20.0


class RocmSmiProbe:
    """Runs ``ask`` with options of ``rocm-smi``, which prints JSON."""

    vendor: Vendor = "amd"

    def __init__(self, ask: Callable[[Sequence[str]], str]) -> None:
        self._ask = ask

    @classmethod
    def open(cls, kfd: Path = KFD) -> "RocmSmiProbe | None":
        """The probe; none on a host without ROCm's driver.

        Raises:
            ProbeFailed: the driver is there, but neither the module nor the command is.
        """
        if not kfd.exists():
            return None
        path = shutil.which("rocm-smi") or shutil.which("rocm-smi", path="/opt/rocm/bin")
        if path is None:
            raise ProbeFailed(
                "amd_library",
                "this host has ROCm's driver, but neither the Python module amdsmi nor the "
                "command rocm-smi: install the package amd-smi-lib or rocm-smi-lib",
            )
        command = path
        return cls(lambda options: _run([command, *options, "--json"]))

    def devices(self) -> list[Device]:
        """Every card, by its number."""
        told = self._cards(_FIXED)
        driver = told.get("system", {}).get("Driver version")
        return [
            Device(
                name=_first(card, "Card Series", "Card series", "Card Model", "Card model")
                or "AMD GPU",
                memory_gb=round(_bytes(card, "VRAM Total Memory (B)") / GIB, 2),
                uuid=_uuid(card.get("Unique ID")),
                driver=driver,
                compute_capability=card.get("GFX Version"),
            )
            for card in _in_order(told)
        ]

    def use(self, place: int) -> DeviceUse:
        """How busy a card is."""
        cards = _in_order(self._cards(_NOW))
        if place >= len(cards):
            return DeviceUse(lost="rocm-smi does not list it any more")
        card = cards[place]
        temperature = _first(
            card, "Temperature (Sensor junction) (C)", "Temperature (Sensor edge) (C)"
        )
        utilisation = card.get("GPU use (%)")
        return DeviceUse(
            utilisation=_number(utilisation),
            memory_used_gb=round(_bytes(card, "VRAM Total Used Memory (B)") / GIB, 2),
            temperature_c=_number(temperature),
        )

    def _cards(self, options: Sequence[str]) -> Cards:
        printed = self._ask(options)
        try:
            told = json.loads(printed[printed.index("{") :])  # warnings may stand before it
        except ValueError:
            said = f"rocm-smi printed no JSON: {printed[:200]!r}"
            raise ProbeFailed("amd_answer", said) from None
        return {name: card for name, card in told.items() if isinstance(card, dict)}


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ProbeFailed("amd_driver", f"rocm-smi failed: {error}") from error
    return done.stdout


def _in_order(told: Cards) -> list[dict[str, str]]:
    names = [name for name in told if name.startswith("card") and name[4:].isdigit()]
    return [told[name] for name in sorted(names, key=lambda name: int(name[4:]))]


def _first(card: dict[str, str], *keys: str) -> str | None:
    return next((card[key] for key in keys if card.get(key) not in {None, "", "N/A"}), None)


def _bytes(card: dict[str, str], key: str) -> int:
    try:
        return int(card[key])
    except (KeyError, ValueError):
        raise ProbeFailed("amd_answer", f"rocm-smi does not tell {key!r} of a card") from None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _uuid(unique_id: str | None) -> str | None:
    """The name that ROCr gives a device; cards for homes have none."""
    try:
        number = int(unique_id or "0", 16)
    except ValueError:
        return None
    return f"GPU-{number:016x}" if number else None
