"""Which library holds weights in which format on which devices, and in how many bytes."""

from collections.abc import Callable
from dataclasses import dataclass

from st_shared.spec.memory import QUANTIZATION_BACKENDS, QuantizationBackend, WeightFormat
from st_trainer.errors import BadSpecError
from st_trainer.quantization.layers import (
    Quantise,
    by_quanto,
    by_torchao,
    int8_by_bitsandbytes,
    nf4_by_bitsandbytes,
)
from st_trainer.quantization.libraries import is_installed

_GPUS = frozenset({"cuda", "xpu"})
_BLOCK = 64
"""Values of nf4 that share a scale."""
_SCALES = 256
"""Scales of nf4 that share a scale of theirs."""
_GROUPS = (128, 96, 64, 32)
"""Values of quanto's int4 that may share a scale and a shift: the first of these by which longer
rows can be cut; of others, and of short ones, a whole row does."""


@dataclass(frozen=True)
class Quantizer:
    """One library's way to hold weights in one format."""

    format: WeightFormat
    backend: QuantizationBackend
    library: str
    """What is imported, such as ``optimum.quanto``."""
    package: str
    """What is installed, such as ``optimum-quanto``."""
    devices: frozenset[str]
    """Types of devices on which it runs forward and backward."""
    quantise: Quantise
    held: Callable[[int, int, int], int]
    """Bytes of a weight of so many rows and columns, whose type has so many bytes a value."""


def _nf4(rows: int, columns: int, _item: int) -> int:
    blocks = -(-rows * columns // _BLOCK)
    return -(-rows * columns // 2) + blocks + 4 * -(-blocks // _SCALES)


def _int4(rows: int, columns: int, item: int) -> int:
    cuts = (group for group in _GROUPS if columns % group == 0)
    group = next(cuts, columns) if columns > _GROUPS[0] else columns
    groups = rows * columns // group
    return -(-rows * columns // 2) + 2 * item * groups


QUANTIZERS: tuple[Quantizer, ...] = (
    Quantizer(
        "int8", "torchao", "torchao", "torchao", _GPUS | {"cpu"},
        by_torchao("Int8WeightOnlyConfig"), lambda rows, columns, _: rows * (columns + 5),
    ),
    Quantizer(
        "int8", "quanto", "optimum.quanto", "optimum-quanto", _GPUS | {"cpu", "mps"},
        by_quanto("qint8"), lambda rows, columns, item: rows * (columns + item),
    ),
    Quantizer(
        "int8", "bitsandbytes", "bitsandbytes", "bitsandbytes", _GPUS | {"cpu"},
        int8_by_bitsandbytes, lambda rows, columns, _: rows * (columns + 4),
    ),
    Quantizer(
        "fp8", "torchao", "torchao", "torchao", _GPUS | {"cpu"},
        by_torchao("Float8WeightOnlyConfig"), lambda rows, columns, _: rows * (columns + 4),
    ),
    Quantizer(
        "fp8", "quanto", "optimum.quanto", "optimum-quanto", _GPUS | {"cpu"},
        by_quanto("qfloat8"), lambda rows, columns, item: rows * (columns + item),
    ),
    Quantizer(
        "nf4", "bitsandbytes", "bitsandbytes", "bitsandbytes", _GPUS | {"cpu"},
        nf4_by_bitsandbytes, _nf4,
    ),
    Quantizer(
        "int4", "quanto", "optimum.quanto", "optimum-quanto", _GPUS | {"cpu", "mps"},
        by_quanto("qint4"), _int4,
    ),
)  # fmt: skip
"""Those of one format in the order of preference. torchao's int4 is not here: its kernels have no
backward pass outside of CUDA and want the package mslk."""


def quantizers(format_: WeightFormat, backend: QuantizationBackend | None) -> list[Quantizer]:
    """Those of a format, of one library if it is given, the preferred first."""
    order = QUANTIZATION_BACKENDS[format_]
    found = [
        each for each in QUANTIZERS if each.format == format_ and backend in {None, each.backend}
    ]
    return sorted(found, key=lambda each: order.index(each.backend))


def quantizer_for(
    format_: WeightFormat, backend: QuantizationBackend | None, device: str, field: str
) -> Quantizer:
    """The one that runs on a type of ``device``, with what is installed; ``field`` asked for it.

    Raises:
        BadSpecError: none does.
    """
    found = quantizers(format_, backend)
    suitable = [each for each in found if device in each.devices]
    if not suitable:
        known = ", ".join(sorted({name for each in found for name in each.devices}))
        raise BadSpecError(f"{field}: {format_} runs on {known}, not on {device}: use another")
    for each in suitable:
        if is_installed(each.library):
            return each
    packages = " or ".join(each.package for each in suitable)
    raise BadSpecError(f"{field}: {format_} needs {packages}: pip install 'st-fleet[quantization]'")
