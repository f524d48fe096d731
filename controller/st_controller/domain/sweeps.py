"""Sweeps: one specification and many sets of changes to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

MOST_JOBS = 1000
"""Jobs of one sweep."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value at one dotted path, such as ``training.datasets.0.repeats``."""

    path: str
    value: Any
    place: str
    """Where it stands in the request, such as ``grid.training.steps.2``."""


class BadSweep(ValueError):
    """A sweep that cannot be; ``field`` is the part of the request that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def of_grid(grid: Mapping[str, Sequence[Any]]) -> list[list[Change]]:
    """Every combination of the values, the last path varying fastest.

    Raises:
        BadSweep: a path has no values, or there are too many combinations.
    """
    if not grid:
        raise BadSweep("grid", "names no path; give each path a list of values")
    for path, values in grid.items():
        if not values:
            raise BadSweep(f"grid.{path}", "has no values; give at least one")
    count = prod(len(values) for values in grid.values())
    if count > MOST_JOBS:
        sizes = " x ".join(str(len(values)) for values in grid.values())
        raise BadSweep("grid", f"{sizes} = {count} jobs; {MOST_JOBS} at most")
    axes = [
        [Change(path, value, f"grid.{path}.{index}") for index, value in enumerate(values)]
        for path, values in grid.items()
    ]
    return [list(combination) for combination in product(*axes)]


def of_list(listed: Sequence[Mapping[str, Any]]) -> list[list[Change]]:
    """One set of changes an entry.

    Raises:
        BadSweep: there are none, or too many.
    """
    if not 1 <= len(listed) <= MOST_JOBS:
        raise BadSweep("list", f"has {len(listed)} entries; 1 to {MOST_JOBS} are possible")
    return [
        [Change(path, value, f"list.{index}.{path}") for path, value in entry.items()]
        for index, entry in enumerate(listed)
    ]


def changed(document: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """A copy of ``document`` with the changes made; what they do not touch is shared with it.

    Raises:
        BadSweep: a path leads to where nothing can be set.
    """
    found: Any = dict(document)
    for change in changes:
        found = _set(found, change.path.split("."), change)
    result: dict[str, Any] = found
    return result


def _set(place: Any, path: Sequence[str], change: Change) -> Any:
    if not path:
        return change.value
    part, rest = path[0], path[1:]
    if isinstance(place, Mapping) and part:
        return {**place, part: _set(place.get(part, {}), rest, change)}
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        at = int(part)
        return [*place[:at], _set(place[at], rest, change), *place[at + 1 :]]
    raise BadSweep(
        change.place,
        f"there is no {part!r} to set; name a key of a mapping or a position of a list, from 0",
    )
