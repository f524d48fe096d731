"""One organisation, team or user: what it has used, may use, and waits for."""

from array import array
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from st_controller.domain.scheduling.model import Level, Share
from st_controller.domain.scheduling.shapes import Shapes

if TYPE_CHECKING:
    from st_controller.domain.scheduling.lines import Line
    from st_controller.domain.scheduling.reservations import Reservation
    from st_controller.domain.scheduling.running import Running

NEGLIGIBLE = 1e-3
"""Usage, in priced slot-seconds, that is not worth remembering."""

LEVELS = len(Level)
BASE, AGED = 0, 1
"""Tables of what waits: under the level asked for, and under the one reached by waiting."""


def _no_moments() -> "tuple[list[array[float]], list[array[float]]]":
    return [array("d") for _ in Level], [array("d") for _ in Level]


Place = tuple[float, str, "Node"]
LevelShape = tuple[int, int]


@dataclass(slots=True, eq=False)
class Node:
    """One organisation, team or user."""

    path: str
    parent: "Node | None"
    share: Share
    usage: float = 0.0
    """Decayed slot-seconds times price, as of ``seen``."""
    forfeited: float = 0.0
    """Claim on the share that lapsed while it was idle, and what decay forgave of a lead over its
    siblings, or (negative) of a lag; counts like usage and decays with it."""
    rate: float = 0.0
    """Price of what runs now, for one second."""
    ahead: float = 0.0
    """What that comes to within the horizon of the policy."""
    reckoned: float = 0.0
    """Its claim and what it is about to add: as such it is compared with its siblings."""
    promised: float = 0.0
    """Price of the slots that are reserved for its jobs, for one second."""
    seen: float = 0.0
    running_jobs: int = 0
    running_slots: int = 0
    kept: "list[Reservation]" = field(default_factory=list)
    """Reservations of jobs below."""
    ends: list[tuple[float, int]] | None = None
    """When jobs below are expected to end and how many slots each then gives back, the soonest
    first; none: nobody has asked since usage was settled."""
    waiting: int = 0
    """Jobs that wait and could be served."""
    children: dict[str, "Node"] = field(default_factory=dict)
    order: list[Place] = field(default_factory=list)
    """Children for which something waits, least served first."""
    key: float | None = None
    """Its place in the parent's order; none: nothing waits."""
    claims: float = 0.0
    """What the active children are reckoned to have had."""
    weights: float = 0.0
    """Weights of the active children."""
    masks: list[int] = field(default_factory=lambda: [0, 0])
    """By table the levels and shapes that wait here, as bits; see ``turns.py``."""
    counts: tuple[dict[LevelShape, int], dict[LevelShape, int]] = field(
        default_factory=lambda: ({}, {})
    )
    """By table, level and shape how many children, or lines of a user, hold it."""
    due: int | None = None
    """Levels and shapes that limits let start of those within their share on every step below;
    none: it has to be found anew."""
    startable: int | None = None
    """Levels asked for and shapes that limits let start, of anybody who is not held back."""
    lines: "dict[tuple[int, int], Line] | None" = None
    """A user's jobs by level and shape; none for the inner nodes."""
    permitted: int = 0
    """Levels and shapes that its limit of slots lets start, as of when ``due`` and ``startable``
    were found; see ``limits.py``."""
    is_limited: bool = False
    """Whether it has any limit."""
    is_limited_anywhere: bool = False
    """Whether it, or a node above it, has any limit."""
    keeps_room: bool = False
    """Whether it has a limit of slots, under which room is kept for some."""
    keeps_room_anywhere: bool = False
    """Whether it, or a node above it, has one."""
    held_back: int = 0
    """Shapes of a user that is over its share which are not to start in this decision."""
    ancestry: tuple["Node", ...] = ()
    """The node, its parent, and so on up to the root."""
    above: tuple["Node", ...] = ()
    """The same without the node itself."""
    aged_lines: "list[dict[int, list[Line]]]" = field(default_factory=lambda: [{} for _ in Level])
    """A user's lines by the level that their first job has reached by waiting, and by shape; those
    of one shape in the order of their first jobs."""
    firsts: "tuple[list[array[float]], list[array[float]]]" = field(default_factory=_no_moments)
    """By table, level and shape when the first job of a user was submitted. The same stands in the
    lines, but far apart in memory, and this is read for every shape that fits."""
    running: "dict[str, Running]" = field(default_factory=dict)
    """A user's jobs that hold slots."""

    def __post_init__(self) -> None:
        self.above = self.parent.ancestry if self.parent else ()
        self.ancestry = (self, *self.above)
        self.take_share(self.share)

    def note_first(self, table: int, level: int, shape: int, submitted: float) -> None:
        """When a user's first job of a level and shape was submitted; infinite: it has none."""
        moments = self.firsts[table][level]
        if shape >= len(moments):
            moments.extend([inf] * (shape + 1 - len(moments)))
        moments[shape] = submitted

    @property
    def claim(self) -> float:
        """What it has had, in the eyes of the fair share."""
        return self.usage + self.forfeited

    @property
    def is_active(self) -> bool:
        """Whether it wants or has anything; only active nodes share."""
        return bool(self.waiting or self.running_jobs or self.promised)

    @property
    def fair(self) -> float:
        """What active children have had for their weight, on average; so much is their share."""
        if self.weights <= 0:
            return float("inf")
        return self.claims / self.weights * (1 + 1e-9) + NEGLIGIBLE

    @property
    def is_within_share(self) -> bool:
        """Whether it has had no more for its weight than its active siblings on average."""
        return self.parent is None or self.reckoned <= self.parent.fair * self.share.weight

    def take_share(self, share: Share) -> None:
        """Take over weight and limits; those below learn whether they are limited."""
        self.share = share
        self.keeps_room = share.max_slots is not None
        self.is_limited = share.max_jobs is not None or self.keeps_room
        changed = [self]
        while changed:
            node = changed.pop()
            above = node.parent
            node.is_limited_anywhere = node.is_limited
            node.keeps_room_anywhere = node.keeps_room
            if above is not None:
                node.is_limited_anywhere |= above.is_limited_anywhere
                node.keeps_room_anywhere |= above.keeps_room_anywhere
            changed += node.children.values()

    def look_anew(self) -> None:
        """What could be served below this node and those above may be something else now."""
        for node in self.ancestry:
            node.due = node.startable = None

    def look_anew_within_share(self) -> None:
        """The same where nothing but who is within its share changed.

        Under a limit of slots that may change for whom room is kept there.
        """
        if self.keeps_room_anywhere:
            self.look_anew()
            return
        for node in self.ancestry:
            node.due = None

    def look_anew_at_held_back(self) -> None:
        """The same where nothing but whom somebody holds back changed: it is due all the same."""
        if self.keeps_room_anywhere:
            self.look_anew()
            return
        for node in self.ancestry:
            node.startable = None

    def allowed(self, mask: int, shapes: Shapes) -> int:
        """The shapes in ``mask`` that its limits would let start if no room was kept there."""
        share = self.share
        if share.max_jobs is not None and self.running_jobs >= share.max_jobs:
            return 0
        if share.max_slots is not None:
            mask &= shapes.no_larger(share.max_slots - self.running_slots)
        return mask
