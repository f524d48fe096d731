"""Numbers the shapes of requests; a set of shapes is a bit mask."""

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from st_controller.domain.scheduling.model import Shape


class Shapes:
    """Every shape that was ever asked for, by number; bit ``n`` of a mask stands for shape ``n``.

    There are few: time limits are rounded, and people ask for the same things again and again.
    """

    def __init__(self) -> None:
        self.known: list[Shape] = []
        self._numbers: dict[Shape, int] = {}
        self._small: dict[int, int] = {}
        self._short: list[tuple[float, int]] = []
        self.single = 0
        """The shapes of one slot; the next that comes free serves them, so none is reserved."""
        self.of_one_node = 0
        """The shapes that are no gangs."""

    def find(self, shape: Shape) -> int | None:
        """The number of ``shape``; none if it was never asked for."""
        return self._numbers.get(shape)

    def add(self, shape: Shape) -> int:
        """Give a new shape its number."""
        number = self._numbers[shape] = len(self.known)
        self.known.append(shape)
        if shape.total == 1:
            self.single |= 1 << number
        if shape.nodes == 1:
            self.of_one_node |= 1 << number
        self._small.clear()
        self._short = list(self._cumulated_limits())
        return number

    def no_larger(self, slots: int) -> int:
        """The shapes that take at most ``slots`` slots on all nodes together."""
        mask = self._small.get(slots)
        if mask is None:
            fitting = (1 << n for n, shape in enumerate(self.known) if shape.total <= slots)
            mask = self._small[slots] = sum(fitting)
        return mask

    def no_longer(self, seconds: float) -> tuple[int, float]:
        """The shapes whose time limit ends within ``seconds``, and the longest such limit."""
        place = bisect_right(self._short, seconds, key=itemgetter(0))
        if not place:
            return 0, 0.0
        longest, mask = self._short[place - 1]
        return mask, longest

    def _cumulated_limits(self) -> Iterator[tuple[float, int]]:
        """Each time limit in rising order with the mask of all shapes up to it."""
        mask = 0
        for limit in sorted({shape.limit for shape in self.known}):
            mask |= sum(1 << n for n, shape in enumerate(self.known) if shape.limit == limit)
            yield limit, mask


def numbers(mask: int) -> Iterator[int]:
    """The shapes in a mask, lowest number first."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
