"""When to try again: after delays that double, with jitter, so that a fleet does not march."""

from collections.abc import Callable, Iterator
from random import random


def delays(first: float, most: float, draw: Callable[[], float] = random) -> Iterator[float]:
    """Seconds to wait before each further try, without end.

    Each is drawn evenly from the upper half of an interval that doubles from ``first`` to ``most``.
    """
    limit = first
    while True:
        yield limit * (1 + draw()) / 2
        limit = min(most, limit * 2)
