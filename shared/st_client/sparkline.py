"""A curve in one line of text."""

import math
from collections.abc import Sequence
from itertools import pairwise

_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """``values`` as at most ``width`` blocks, each the mean of its share; not finite: ``!``."""
    count = min(width, len(values))
    bounds = [index * len(values) // count for index in range(count + 1)] if count else []
    means = [math.fsum(values[start:end]) / (end - start) for start, end in pairwise(bounds)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_level(mean, low, high) for mean in means)


def _level(mean: float, low: float, high: float) -> str:
    if not math.isfinite(mean):
        return "!"
    share = (mean - low) / (high - low) if high > low else 0.5
    return _LEVELS[min(len(_LEVELS) - 1, int(share * len(_LEVELS)))]
