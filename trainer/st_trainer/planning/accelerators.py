"""Accelerators by name: memory, arithmetic and bandwidth.

From the vendors' data sheets (NVIDIA A100, H100, H200, B200, L4, L40S, A10, T4, V100, RTX A6000 and
the Ada and Blackwell GeForce white papers; AMD Instinct MI300X): dense tensor operations with sums
in fp32, without sparsity; fp32 without tensor cores; one direction of PCIe, and of
NVLink (by NVSwitch) or Infinity Fabric to the others of a host, where kinds for training have it.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

_GB = 10**9
_GIB = 2**30
_SHARE = 0.97
_DRIVER = _GIB // 2


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator."""

    name: str
    memory: int
    """Bytes."""
    half: float
    """Operations a second in bf16, or fp16 where there is no bf16."""
    single: float
    """The same in fp32."""
    bandwidth: float
    """Bytes a second of its memory."""
    link: float = 32 * _GB
    """Bytes a second to the host."""
    has_bf16: bool = True
    between: float = 0
    """Bytes a second to others of the same host, by a link of their own; 0: there is none."""

    @property
    def fabric(self) -> float:
        """Bytes a second to others of the same host."""
        return self.between or self.link

    @property
    def usable(self) -> int:
        """Bytes that a run may take: less the driver's share, and 3 % that lie between blocks."""
        return int(self.memory * _SHARE) - _DRIVER

    def operations(self, precision: Literal["fp32", "bf16", "fp16"]) -> float:
        """Operations a second in a precision."""
        return self.single if precision == "fp32" else self.half


def _kind(
    name: str,
    gib: int,
    half: float,
    single: float,
    gb_s: float,
    link: int = 32,
    *,
    bf16: bool = True,
    between: int = 0,
) -> Accelerator:
    rates = (half * 1e12, single * 1e12, gb_s * _GB, link * _GB)
    return Accelerator(name, gib * _GIB, *rates, bf16, between * _GB)


ACCELERATORS: dict[str, Accelerator] = {
    each.name: each
    for each in (
        _kind("T4-16GB", 15, 65, 8.1, 300, 16, bf16=False),
        _kind("V100-32GB", 32, 125, 15.7, 900, 16, bf16=False, between=150),
        _kind("A10-24GB", 22, 125, 31.2, 600),
        _kind("L4-24GB", 22, 121, 30.3, 300),
        _kind("RTX3090-24GB", 24, 71, 35.6, 936),
        _kind("RTX4090-24GB", 24, 165, 82.6, 1008),
        _kind("RTX5090-32GB", 32, 209, 104.8, 1792, 64),
        _kind("A6000-48GB", 48, 155, 38.7, 768),
        _kind("L40S-48GB", 45, 362, 91.6, 864),
        _kind("A100-40GB", 40, 312, 19.5, 1555, between=300),
        _kind("A100-80GB", 80, 312, 19.5, 2039, between=300),
        _kind("H100-80GB", 80, 989, 67, 3350, 64, between=450),
        _kind("H200-141GB", 140, 989, 67, 4800, 64, between=450),
        _kind("MI300X-192GB", 192, 1307, 163, 5300, 64, between=448),
        _kind("B200-180GB", 178, 2250, 75, 7700, 64, between=900),
    )
}
"""In the order of their memory; memory is what drivers show, GiB."""


def needed(total: int) -> int:
    """Bytes of memory of an accelerator of which a run may take ``total``."""
    return ceil((total + _DRIVER) / _SHARE)


def smallest(total: int) -> Accelerator | None:
    """The first with the least memory in which a run may take ``total`` bytes; None: none."""
    fitting = [each for each in ACCELERATORS.values() if each.usable >= total]
    return min(fitting, key=lambda each: each.memory, default=None)


def accelerator(text: str) -> Accelerator:
    """The kind of that name, or one of so many bytes that computes like an L4.

    Raises:
        ValueError: it is neither a known name nor a number, such as ``24e9`` or ``24GB``.
    """
    by_name = {name.lower(): each for name, each in ACCELERATORS.items()}
    if found := by_name.get(text.lower()):
        return found
    number, unit = text.lower(), 1
    for ending, size in (("gib", _GIB), ("gb", _GB), ("mib", 2**20), ("mb", 10**6), ("b", 1)):
        if number.endswith(ending):
            number, unit = number.removesuffix(ending), size
            break
    try:
        memory = int(float(number) * unit)
    except (ValueError, OverflowError):
        memory = 0
    if memory <= 0:
        known = ", ".join(ACCELERATORS)
        raise ValueError(f"{text!r} is no accelerator: give bytes, such as 24GB, or one of {known}")
    like = ACCELERATORS["L4-24GB"]
    return Accelerator(text, memory, like.half, like.single, like.bandwidth)
