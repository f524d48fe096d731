"""Buckets: sizes among which pictures and videos of other aspects are divided.

A batch holds samples of one bucket, so that none is squeezed and little is cut off.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

Size = tuple[int, int]
"""Height and width, pixels."""

Centring = tuple[float, float]
"""Which part of what is too much is cut off above and at the left, from 0, none, to 1, all."""

CENTRE: Centring = (0.5, 0.5)

Crop = Literal["center", "corner", "random", "face"]
"""What is kept of a sample of another aspect."""

Measure = Literal["area", "shorter side"]
"""What sizes have in common."""


def bucket_sizes(
    side: int, step: int, max_aspect: float, measure: Measure = "area"
) -> tuple[Size, ...]:
    """The square of ``side``, then sizes of about its area, each upright and lying.

    Sides differ from ``side`` by multiples of ``step``, and the longer is at most ``max_aspect``
    times the shorter. The area is as near as ``step`` lets it be for the longer side; or else the
    shorter side is always ``side``.
    """
    found: list[Size] = [(side, side)]
    for longer in range(side + step, math.floor(side * max_aspect) + 1, step):
        shorter = side
        if measure == "area":
            shorter += round((side * side / longer - side) / step) * step
        if shorter > 0 and longer <= max_aspect * shorter:
            found += [(longer, shorter), (shorter, longer)]
    return tuple(found)


def sizes_around(base: Size, step: int, max_aspect: float) -> tuple[Size, ...]:
    """``base``, then sizes of about its area; sides are multiples of ``step``."""
    side = max(round(math.sqrt(base[0] * base[1]) / step), 1) * step
    others = [size for size in bucket_sizes(side, step, max_aspect) if size != base]
    return (base, *others)


def chosen(sizes: Sequence[Size], aspects: Sequence[float]) -> tuple[Size, ...]:
    """Those of ``sizes`` that are the nearest to one of ``aspects``, width over height."""
    wanted = {nearest(sizes, 1, aspect) for aspect in aspects}
    return tuple(size for size in sizes if size in wanted)


def nearest(sizes: Sequence[Size], height: float, width: float) -> Size:
    """The first of ``sizes`` whose aspect is nearest to that of an image, as a ratio."""
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: abs(math.log(size[1] / size[0]) - wanted))


def centring_by(style: Crop, name: str) -> Centring:
    """Where a sample of ``name`` is cut; random places follow from the name alone.

    ``face``: where nobody has told what is to be kept.
    """
    match style:
        case "center" | "face":
            return CENTRE
        case "corner":
            return 0.0, 0.0
        case "random":
            return share_of(f"{name} above"), share_of(f"{name} left")


def share_of(text: str) -> float:
    """A number from 0 to 1 that follows from ``text``, spread evenly."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).digest()
    return int.from_bytes(digest) / 0xFFFFFFFF
