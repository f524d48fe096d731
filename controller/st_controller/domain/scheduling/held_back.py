"""Users over their share of whom jobs wait because those beside them have had less."""

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.lines import Line
from st_controller.domain.scheduling.nodes import Node

IDLE_PART = 0.02
"""Part of the slots for which a job may compete that stays free at most, rather than be filled by
those over their share, while others beside them who want more at once have had less."""
LARGE_POOL = 2_000
"""Slots beyond which none stays free for that reason: those passed over find room soon anyway."""
MOST_HELD_BACK = 6
"""Users that one decision holds back for that reason; it bounds what a decision costs."""


class HeldBack:
    """Whom one decision holds back; the next looks anew, and so does each that opens workers.

    Whoever has small jobs fits into every hole. Where it is over its share while somebody beside
    it, who wants more at once, has had less, its team would go over its share by that at the cost
    of the other, so a few slots stay free instead, for those within their share or for larger jobs.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._leaves: list[Node] = []

    def add(self, line: Line, passed: Line, fitting: int) -> bool:
        """Hold a line back for the sake of another; false where that would cost too much."""
        waits = self._shapes(line.shape, passed.shape, fitting)
        if not waits:
            return False
        line.leaf.held_back |= waits
        line.leaf.look_anew_at_held_back()
        self._leaves.append(line.leaf)
        return True

    def may_hold(self, number: int) -> bool:
        """Whether anybody at all is held back who wants this shape."""
        few = len(self._leaves) < MOST_HELD_BACK
        return few and self._fleet.reach.slots_for(number) <= LARGE_POOL

    def let_in(self) -> None:
        """Forget whom we held back."""
        for leaf in self._leaves:
            leaf.held_back = 0
            leaf.look_anew_at_held_back()
        self._leaves.clear()

    def _shapes(self, number: int, passed: int, fitting: int) -> int:
        """The shapes of which a user over its share starts none now for the sake of another."""
        if not self.may_hold(number):
            return 0
        if not fitting >> number & 1:
            return self._fleet.reach.rivals(passed) & self._fleet.reach.rivals(number) & ~fitting
        on_kept_workers = not self._fleet.openings.mask >> number & 1
        if on_kept_workers or self._leaves_enough_idle(number):
            return 0
        return self._fleet.reach.alike(number)

    def _leaves_enough_idle(self, number: int) -> bool:
        return self._fleet.reach.idle_for(number) > IDLE_PART * self._fleet.reach.slots_for(number)
