"""Urgent jobs that a limit of their own tenants holds up: which are looked at, and when.

Such a job stands in no line that is searched, since nothing that a limit holds up is. So these are
remembered apart, and looked at where the answer may be another than before.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from st_controller.domain.scheduling.attention import Attention
from st_controller.domain.scheduling.backlog import Backlog
from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.lines import Line
from st_controller.domain.scheduling.model import Level, PendingJob
from st_controller.domain.scheduling.nodes import Node
from st_controller.domain.scheduling.preemption import Clearings
from st_controller.domain.scheduling.reservations import Reservations
from st_controller.domain.scheduling.running import Running, RunningJobs
from st_controller.domain.scheduling.turns import Turns
from st_controller.domain.scheduling.yielding import Others, Room, Yielding

Order = tuple[int, bool, list[tuple[float, str]], float, str]
"""The higher level first, those within their share, who was served least, who came first."""


@dataclass(slots=True)
class _Changed:
    """What changed since it was looked at."""

    everything: bool = True
    opened: set[Node] = field(default_factory=set)
    """Nodes with limits below which one ended that would not have yielded, or a promise did."""
    filled: set[Node] = field(default_factory=set)
    """Those below which a job started: somebody may be held up who was not."""


class OwnLimits:
    """Looks for urgent jobs for which lower ones of the same tenants are to yield."""

    def __init__(
        self,
        fleet: Fleet,
        backlog: Backlog,
        turns: Turns,
        reservations: Reservations,
        running: RunningJobs,
        clearings: Clearings,
        attention: Attention,
    ) -> None:
        self._attention = attention
        self._fleet, self._backlog, self._turns = fleet, backlog, turns
        self._reservations, self._clearings = reservations, clearings
        self._yielding = Yielding(fleet, running.held, clearings)
        self._changed = _Changed()
        self._started: set[Node] = set()
        """Nodes with limits below which this decision started jobs."""
        self._left: list[tuple[Order, Line]] = []
        """Lines that are still to be looked at, once nobody of a higher level is to be served."""
        self._in_vain: set[Line] = set()
        """Lines for which too few would yield, whoever starts meanwhile."""
        self._unplaced: dict[Line, None] = {}
        """Lines for which enough would, but no workers could be cleared."""
        self._fits_now = 0
        """The shapes of those, of which it may be seen that they fit on a worker now."""

    # What it is told

    def note_everything(self) -> None:
        """Limits, workers, or what is known of running jobs may be others."""
        self._changed.everything = True

    def note_end(self, running: Running) -> None:
        """A job of a limited user ended; where it would have yielded, nothing more yields now."""
        if self._backlog.preemptors and not self._clearings.may_yield(running, Level.URGENT):
            self.note_opened(running.leaf)

    def note_opened(self, leaf: Node) -> None:
        """Less is taken, or promised, of the limits of a user."""
        if self._backlog.preemptors and leaf.is_limited_anywhere:
            self._changed.opened.add(outermost_limit(leaf))

    def note_start(self, leaf: Node) -> None:
        """A job of a limited user started."""
        if self._backlog.preemptors:
            self._started.add(outermost_limit(leaf))

    def begin(self) -> None:
        """A new decision: what the last one started may yield now."""
        if self._started:
            self._changed.filled |= self._started
            self._started.clear()

    # What it finds

    @property
    def is_due(self) -> bool:
        """Whether there is anything to be looked at."""
        return bool(self._backlog.preemptors) and (bool(self._left) or self._has_changed)

    @property
    def _has_changed(self) -> bool:
        changed = self._changed
        return bool(
            changed.everything
            or changed.opened
            or changed.filled
            or self._backlog.new_preemptors
            or self._fits_now & self._fleet.openings.mask
        )

    def make_room(self, above: int, now: float) -> tuple[PendingJob, Line, int, Room] | None:
        """The first job above a level that is held up by its limits and for which others yield."""
        self._gather()
        self._yielding.begin()
        while self._left and -self._left[-1][0][0] > above:
            (negative, *_), line = self._left.pop()
            if line not in self._backlog.preemptors:
                continue
            job = self._backlog.waiting[line.turn[1]].job
            room = self._room(job, line, -negative, now)
            if room is not None:
                return job, line, -negative, room
        return None

    def _room(self, job: PendingJob, line: Line, level: int, now: float) -> Room | None:
        leaf, shape = line.leaf, line.shape
        if not self._fleet.reach.satisfiable >> shape & 1:
            return None
        if self._turns.permits(leaf, level, shape):
            return None  # it waits for workers, as others do
        limited = [node for node in leaf.ancestry if node.is_limited]
        if not all(self._turns.is_first(node, level) for node in limited):
            return None
        lacking = self._yielding.lacking(job, shape, level, limited)
        if lacking is None:
            if not self._attention.started:
                self._in_vain.add(line)
            return None
        outranked = frozenset(kept.job.id for kept in self._reservations if kept.level < level)
        others = Others(outranked, self._reservations.cleared())
        room = self._yielding.room(job, shape, lacking, others, now)
        if room is None:
            self._unplaced[line] = None
            self._fits_now = self._mask_of_unplaced()
        return room if room is not None and room.awaited else None

    def _gather(self) -> None:
        """Put the lines that are to be looked at in order, the last one first to be served."""
        if not self._has_changed:
            return
        due = {line: None for _, line in self._left}
        due |= dict.fromkeys(self._touched())
        self._changed = _Changed(everything=False)
        self._backlog.new_preemptors.clear()
        self._in_vain.difference_update(due)
        self._in_vain.intersection_update(self._backlog.preemptors)
        self._unplaced = {
            line: None
            for line in self._unplaced
            if line not in due and line in self._backlog.preemptors
        }
        self._fits_now = self._mask_of_unplaced()
        self._left = [(self._order(line), line) for line in due if line in self._backlog.preemptors]
        self._left.sort(key=_order_of, reverse=True)

    def _touched(self) -> Iterator[Line]:
        changed = self._changed
        for line in self._backlog.preemptors:
            leaf = line.leaf
            if leaf.is_limited_anywhere and (
                changed.everything
                or line in self._backlog.new_preemptors
                or not changed.opened.isdisjoint(leaf.ancestry)
                or (line in self._unplaced and self._fits(line))
                or (
                    line not in self._in_vain
                    and line not in self._unplaced
                    and not changed.filled.isdisjoint(leaf.ancestry)
                )
            ):
                yield line

    def _fits(self, line: Line) -> bool:
        return bool((self._fleet.openings.mask & self._fits_now) >> line.shape & 1)

    def _mask_of_unplaced(self) -> int:
        """Of a gang it is not seen at a glance whether all of it fits."""
        return sum(1 << shape for shape in {line.shape for line in self._unplaced}) & (
            self._fleet.shapes.of_one_node
        )

    def _order(self, line: Line) -> Order:
        """Its place in the order of service."""
        within = all(node.is_within_share for node in line.leaf.ancestry)
        level = line.reached if within and line.reached is not None else int(line.level)
        served = [(node.key or 0.0, node.path) for node in reversed(line.leaf.ancestry)]
        return -level, not within, served, *line.turn


def _order_of(found: tuple[Order, Line]) -> Order:
    return found[0]


def outermost_limit(leaf: Node) -> Node:
    """The node nearest to the root that has limits, of a user who is limited anywhere."""
    return next(node for node in reversed(leaf.ancestry) if node.is_limited)
