"""Of the lines of a user that may be served, the one whose first job was submitted first."""

from math import inf
from typing import TYPE_CHECKING

from st_controller.domain.scheduling.nodes import AGED, BASE, Node

if TYPE_CHECKING:
    from st_controller.domain.scheduling.lines import Line


def earliest_line(leaf: Node, level: int, mask: int, width: int) -> "Line":
    """The line of a user whose first job was submitted first, among those at a level.

    These are the lines of that level, and those that have risen to it or above.
    """
    earliest, best = inf, (BASE, level, -1)
    here = leaf.masks[BASE] >> level * width & mask
    aged = leaf.masks[AGED] >> level * width
    table, reached = BASE, level
    while here or aged:
        moments = leaf.firsts[table][reached]
        while here:  # as ``numbers`` does; this is the innermost loop of all
            lowest = here & -here
            here ^= lowest
            number = lowest.bit_length() - 1
            submitted = moments[number]
            if submitted > earliest:
                continue
            place = (table, reached, number)
            if submitted < earliest or _line(leaf, *place).turn < _line(leaf, *best).turn:
                earliest, best = submitted, place
        reached += table == AGED
        table, here = AGED, aged & mask
        aged >>= width
    if earliest == inf:
        raise AssertionError(f"nothing of {leaf.path} waits at level {level}")
    return _line(leaf, *best)


def _line(leaf: Node, table: int, level: int, number: int) -> "Line":
    """The line of a user, one at or risen to this level, whose first job is the earliest."""
    if table == BASE:
        return (leaf.lines or {})[level, number]
    return leaf.aged_lines[level][number][0]
