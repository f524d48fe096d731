"""Buckets: sizes of about one area among which images of other aspects are divided.

A batch holds images of one bucket, so that none is squeezed and little is cut off.
"""

import math
from collections.abc import Sequence

Size = tuple[int, int]
"""Height and width, pixels."""


def bucket_sizes(side: int, step: int, max_aspect: float) -> tuple[Size, ...]:
    """The square of ``side``, then sizes of about its area, each upright and lying.

    Sides differ from ``side`` by multiples of ``step``, and the longer is at most ``max_aspect``
    times the shorter. The area is as near as ``step`` lets it be for the longer side.
    """
    found: list[Size] = [(side, side)]
    for longer in range(side + step, math.floor(side * max_aspect) + 1, step):
        shorter = side + round((side * side / longer - side) / step) * step
        if shorter > 0 and longer <= max_aspect * shorter:
            found += [(longer, shorter), (shorter, longer)]
    return tuple(found)


def nearest(sizes: Sequence[Size], height: int, width: int) -> Size:
    """The first of ``sizes`` whose aspect is nearest to that of an image, as a ratio."""
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: abs(math.log(size[1] / size[0]) - wanted))
