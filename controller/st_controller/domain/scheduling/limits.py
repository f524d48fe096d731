"""What the limits of a tenant let start, and for whom room is kept under them.

A limit of 16 slots that jobs of one slot keep filled would never let a job of eight begin, of
whatever class it is. So room is kept under a limit as it is on workers. A job with a reservation
counts as if it ran, for its own level and those below. While a job waits for nothing but a limit,
those of lower levels below the same tenant start only if their time limits end before there is
expected to be room.
"""

from collections.abc import Callable

from st_controller.domain.scheduling.nodes import LEVELS, Node
from st_controller.domain.scheduling.shapes import Shapes, numbers

Ends = Callable[[Node], list[tuple[float, int]]]
"""When jobs below a node are expected to end, and the slots of each, the soonest first."""


class Limits:
    """Looks at the limits of one node at a time."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self.ends: Ends = lambda _node: []
        self.satisfiable = 0
        """The shapes that some workers could run; room is kept for no others."""
        self.now = 0.0

    def permitted(self, node: Node, waiting: int, width: int) -> int:
        """The levels and shapes that the limits of a node let start, as bits of ``width`` a level.

        ``waiting``: what waits there and is let through by all limits below.
        """
        share = node.share
        if share.max_jobs is not None and node.running_jobs >= share.max_jobs:
            return 0
        if share.max_slots is None and not node.kept:
            return (1 << width * LEVELS) - 1
        ones = (1 << width) - 1
        room = self._within(node, 0) & ones
        everywhere = sum(room << level * width for level in range(LEVELS))
        if not node.kept and not waiting & ~everywhere:
            return everywhere
        could_ever = self._could_ever(node) & self.satisfiable & ones
        found = 0
        for level in range(LEVELS - 1, -1, -1):
            here = self._beside_kept(node, level, room) if node.kept else room
            found |= here << level * width
            if blocked := waiting >> level * width & could_ever & ~here:
                short = room & self._over_before(node, blocked)
                return found | sum(short << lower * width for lower in range(level))
        return found

    def _beside_kept(self, node: Node, level: int, room: int) -> int:
        """The shapes that may start at a level, among those for which there is room now."""
        kept = [each for each in node.kept if each.level >= level]
        if not kept:
            return room
        max_jobs, beside = node.share.max_jobs, 0
        if max_jobs is None or node.running_jobs + len(kept) < max_jobs:
            beside = self._within(node, sum(self._shapes.known[each.shape].total for each in kept))
        if node.share.max_slots is None:
            return room & beside  # which time alone does not change: nobody remembers it
        before = min(self.now if each.awaited else each.start for each in kept)
        return room & (beside | self._shapes.no_longer(before - self.now)[0])

    def _over_before(self, node: Node, blocked: int) -> int:
        """The shapes whose time limits end before one of those has room under the limit."""
        fewest = min(self._shapes.known[number].total for number in numbers(blocked))
        lacking = node.running_slots + fewest - (node.share.max_slots or 0)
        opens = self.now
        for until, slots in self.ends(node):
            if lacking <= 0:
                break
            opens, lacking = until, lacking - slots
        return self._shapes.no_longer(opens - self.now)[0]

    def _within(self, node: Node, slots: int) -> int:
        """The shapes that the limit of slots lets run beside what runs and so many more."""
        if node.share.max_slots is None:
            return -1
        return self._shapes.no_larger(node.share.max_slots - node.running_slots - slots)

    def could_ever(self, node: Node) -> int:
        """The shapes that workers could run, and the limits of a node while nothing else does."""
        return self._could_ever(node) & self.satisfiable if node.share.max_jobs != 0 else 0

    def _could_ever(self, node: Node) -> int:
        """The shapes that the limit of slots lets run while nothing else does."""
        if node.share.max_slots is None:
            return -1
        return self._shapes.no_larger(node.share.max_slots)
