"""Metric points of several attempts as one curve."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Point = TypeVar("Point")

Place = tuple[int, int, int]
"""Attempt, step, and the number of the line within the attempt."""


def as_one_curve(points: Iterable[Point], place: Callable[[Point], Place]) -> list[Point]:
    """The points in order of steps, without gap or double.

    An attempt that goes on from a checkpoint measures some steps again: from the first step that
    it measured on, it alone counts.
    """
    found: list[Point] = []
    for point in sorted(points, key=place):
        attempt, step, _ = place(point)
        while found and _is_superseded(place(found[-1]), attempt, step):
            found.pop()
        found.append(point)
    return found


def _is_superseded(before: Place, attempt: int, step: int) -> bool:
    return before[0] < attempt and before[1] >= step
