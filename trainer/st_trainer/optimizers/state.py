"""Bytes of an optimiser's state for one weight, by the weight's shape; values are fp32.

Counted from the tensors that each class keeps, and held to them by a test. Single numbers, such as
a count of steps, are left out.
"""

from collections.abc import Callable, Sequence
from math import prod

StateBytes = Callable[[Sequence[int]], int]

_ITEM = 4
_SMALL = 4096
"""Weights of fewer values keep their state in fp32, in bitsandbytes."""
_LARGEST = 10_000
"""Longest side for which SOAP keeps a matrix."""


def moments(count: int) -> StateBytes:
    """So many tensors of the shape of the weight."""

    def held(shape: Sequence[int]) -> int:
        return count * prod(shape) * _ITEM

    return held


two_moments = moments(2)
"""What Adam keeps."""


def factored(more: int) -> StateBytes:
    """``more`` tensors of the shape, and ``more + 1`` pairs of a row and a column.

    Vectors, which have no rows, keep a whole tensor; Shazeer & Stern 2018, section 3.
    """

    def held(shape: Sequence[int]) -> int:
        size = prod(shape)
        if len(shape) < 2:
            return (more + 1) * size * _ITEM
        pairs = size // shape[-1] + size // shape[-2]
        return (more * size + (more + 1) * pairs) * _ITEM

    return held


def blocks(count: int, bits: int, values: int) -> StateBytes:
    """``count`` tensors of so many ``bits``, with a scale for so many ``values``."""

    def held(shape: Sequence[int]) -> int:
        size = prod(shape)
        if size < _SMALL:
            return count * size * _ITEM
        return count * (size * bits // 8 + -(-size // values) * _ITEM)

    return held


def soap(shape: Sequence[int]) -> int:
    """Two moments, and two square matrices a side; Vyas et al. 2024, algorithm 3."""
    sides = [side for side in shape if side <= _LARGEST] if len(shape) > 1 else []
    return (2 * prod(shape) + 2 * sum(side * side for side in sides)) * _ITEM


def muon(shape: Sequence[int]) -> int:
    """One moment of a matrix, two of anything else."""
    return moments(1 if len(shape) == 2 else 2)(shape)
