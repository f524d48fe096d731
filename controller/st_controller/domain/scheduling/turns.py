"""Whose turn it is: down the tree of tenants to the line that is to be served next."""

from typing import TYPE_CHECKING, NamedTuple

from st_controller.domain.scheduling.earliest import earliest_line
from st_controller.domain.scheduling.limits import Limits
from st_controller.domain.scheduling.model import Level
from st_controller.domain.scheduling.nodes import AGED, BASE, LEVELS, Node

if TYPE_CHECKING:
    from st_controller.domain.scheduling.lines import Line

EXCESS = 1.01
"""What somebody may have had, over its share, before others take precedence where it would fit and
they do not."""
SURELY, SURELY_NOT = 1 - 1e-12, 1 + 1e-12
"""Parts of a share by which its place in the order says that a child is, or is not, within it. What
is promised only puts it further back, so that second is true where nothing is promised."""
SHAPES_AT_FIRST = 64
"""Bits that each level has in a mask until there are more shapes."""


class Next(NamedTuple):
    """Who is to be served next."""

    line: "Line"
    level: int
    is_within_share: bool
    """On every step of the tree, so that nobody beside it has had less."""


class Turns:
    """What waits below every node, kept as bits, and the search for who is next.

    A mask of all levels holds one bit a level and shape, the higher level in the higher bits. Each
    node remembers, until anything changes there or below, which of them could be served: so what
    nobody wants is known without a search, and a search never goes down in vain.
    """

    def __init__(self, root: Node, limits: Limits) -> None:
        self._root, self._limits = root, limits
        self._had_risen: set[Node] = set()
        """Below which one that had risen was served since usage was settled."""
        self._set_width(SHAPES_AT_FIRST)

    def note_served(self, line: "Line", level: int) -> None:
        """A job of a line was served at this level, perhaps because it has risen above it."""
        if line.reached is not None and line.reached > level:
            self._had_risen.update(line.leaf.ancestry)

    def note_settled(self) -> None:
        """Usage was settled."""
        self._had_risen.clear()

    # What waits

    def hold(self, leaf: Node, table: int, level: int, shape: int) -> None:
        """A line of this user holds jobs of a shape from now on."""
        if shape >= self._width:
            self._widen(shape)
        bit, key = 1 << level * self._width + shape, (level, shape)
        for node in leaf.ancestry:
            counts = node.counts[table]
            counts[key] = known = counts.get(key, 0) + 1
            node.masks[table] |= bit
            if known > 1:
                break
        leaf.look_anew_within_share()
        if table == BASE:
            self._add_startable(leaf, shape, bit)

    def drop(self, leaf: Node, table: int, level: int, shape: int) -> None:
        """A line of this user holds none any more."""
        bit, key = 1 << level * self._width + shape, (level, shape)
        for node in leaf.ancestry:
            counts = node.counts[table]
            if counts[key] > 1:
                counts[key] -= 1
                break
            del counts[key]
            node.masks[table] &= ~bit
        leaf.look_anew_within_share()
        if table == BASE:
            self._remove_startable(leaf, bit)

    def asked_for(self, node: Node, level: int = 0) -> int:
        """The shapes that wait below a node under this level, as asked for, or a higher one."""
        found, left = 0, node.masks[BASE] >> level * self._width
        while left:
            found |= left & self._ones
            left >>= self._width
        return found

    def note_satisfiable(self, shapes: int) -> None:
        """These shapes could run on some workers if nothing else did."""
        if shapes == self._limits.satisfiable:
            return
        self._limits.satisfiable = shapes
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            if node.keeps_room:
                node.look_anew()

    # Who is next

    def pick(self, mask: int, fillers: int = 0) -> Next | None:
        """The line to be served next among the shapes in ``mask``.

        ``fillers`` are further shapes, for those within their share alone.

        The highest level first. Within it those who are within their share on every step of the
        tree, then all; among each, from the root down, whoever has had the least for its weight.
        So where the head of an organisation's least served user does not fit, its turn does not
        fall to a user of it who has had too much already while others have not.
        Levels reached by waiting count only for those within their share: who has had more is
        not starved, and must not overtake those who have had less by having queued more.
        """
        root = self._root
        wanted = ((mask | fillers) & self._ones) * self._every
        if not (root.masks[BASE] | root.masks[AGED]) & wanted:
            return None  # as most often, once what came free is given away
        due = self._due(root) & wanted
        startable = self._startable(root) & (mask & self._ones) * self._every
        if not due and not startable:
            return None
        level = ((due | startable).bit_length() - 1) // self._width
        at_level = self._ones << level * self._width
        if due & at_level:
            leaf = self._least_served_within_share(root, due & at_level)
            allowed = self._allowed(leaf, level, mask | fillers)
            return Next(earliest_line(leaf, level, allowed, self._width), level, True)
        return Next(self._line_below(root, level, mask), level, False)

    def passed_over(self, leaf: Node, level: int, mask: int) -> "tuple[Line, bool] | None":
        """The line of somebody within its share whom a user that is over its own passes by.

        On each step of the tree at which the user, or what it belongs to, has had too much, the
        siblings are looked at that have had less; also tells whether one has a reservation.
        """
        shift = level * self._width
        for node in reversed(leaf.ancestry):
            parent = node.parent
            if parent is None:
                continue
            mask &= self.permitted(parent, level)
            if node.is_within_share:
                continue
            less, wanted = node.reckoned / node.share.weight / EXCESS, mask << shift
            for _, _, sibling in parent.order:
                if sibling is node:
                    break
                waiting = sibling.masks[BASE] & wanted
                if (
                    waiting
                    and sibling.reckoned <= less * sibling.share.weight
                    and self._startable(sibling) & waiting
                ):
                    line = self._line_below(sibling, level, waiting >> shift)
                    return line, bool(sibling.promised)
        return None

    def _line_below(self, node: Node, level: int, mask: int) -> "Line":
        """The line of the least served below a node of which something can start.

        Who has had too much competes with others at the levels asked for. Below it levels reached
        by waiting count for those within their share there, as they do in the whole tree, for one
        job each time usage is settled: more would cost too much where whole queues have risen.
        """
        known = mask & self._ones
        wanted = known << level * self._width & self._startable(node)
        lower = known * self._below[level] if level < Level.URGENT else 0
        while node.lines is None:
            # What has risen to this level counts where others ask for such a shape at it.
            mask &= node.masks[BASE] >> level * self._width
            if node.is_limited:
                known &= self.permitted(node, level)
            for _, _, child in node.order:
                there = child.startable
                if there is None:
                    there = self._startable(child)
                there &= wanted
                if there:
                    node, wanted = child, there
                    break
            else:
                raise AssertionError(f"nothing below {node.path!r} can start")
            if lower and node not in self._had_risen and node.masks[BASE] & lower:
                risen = self._risen_below(node, level, known)
                if risen is not None:
                    return risen
        return earliest_line(
            node, level, self._allowed(node, level, mask) & ~node.held_back, self._width
        )

    def _risen_below(self, node: Node, level: int, mask: int) -> "Line | None":
        """The line that comes first by the level reached, among those of lower classes below."""
        if node.is_within_share:
            return None  # it would be due
        width, lower = self._width, 0
        for each in range(level):
            lower |= node.masks[BASE] >> each * width
        mask &= lower  # the others are served at this level in any case
        shift = (level + 1) * width
        wanted = (mask * self._every >> shift << shift) & node.masks[AGED]
        if not wanted or not (wanted := wanted & self._due(node)):
            return None
        reached = (wanted.bit_length() - 1) // width
        leaf = self._least_served_within_share(node, wanted & self._ones << reached * width)
        if leaf.is_limited_anywhere:
            for below in leaf.ancestry[: len(leaf.ancestry) - len(node.above)]:
                mask &= self.permitted(below, reached)
        mask &= ~leaf.held_back
        if not leaf.masks[AGED] >> reached * width & mask:
            return None
        return earliest_line(leaf, reached, mask, width)

    def _least_served_within_share(self, node: Node, wanted: int) -> Node:
        while node.lines is None:
            node, wanted = self._first_within_share(node, wanted)
        return node

    def _first_within_share(self, node: Node, wanted: int) -> tuple[Node, int]:
        """The least served child that is due for any of what is wanted, and for what of it."""
        fair = node.fair
        surely = fair * SURELY
        for key, _, child in node.order:
            if key > surely and child.reckoned > fair * child.share.weight:
                continue
            known = child.due
            there = (self._due(child) if known is None else known) & wanted
            if there:
                return child, there
        raise AssertionError(f"nobody below {node.path!r} is due")

    # What is remembered

    def _due(self, node: Node) -> int:
        """What waits, at any level, for those within their share on every step below the node."""
        found = node.due
        if found is not None:
            return found
        if node.keeps_room:
            self._look_at_limits(node)
            return node.due or 0
        node.due = found = self._within_job_limit(node, self._due_below(node))
        return found

    def _due_below(self, node: Node) -> int:
        """The same before its own limits."""
        if node.lines is not None:
            found = node.masks[BASE] | node.masks[AGED]
        else:
            found, fair = 0, node.fair
            surely, never = fair * SURELY, float("inf") if node.promised else fair * SURELY_NOT
            for key, _, child in node.order:
                if key <= surely or child.reckoned <= fair * child.share.weight:
                    below = child.due
                    found |= self._due(child) if below is None else below
                elif key > never:
                    break
        return found

    def _startable(self, node: Node) -> int:
        """What waits below the node under the levels asked for, and nobody holds back."""
        found = node.startable
        if found is not None:
            return found
        if node.keeps_room:
            self._look_at_limits(node)
            return node.startable or 0
        node.startable = found = self._within_job_limit(node, self._startable_below(node))
        return found

    def _startable_below(self, node: Node) -> int:
        """The same before its own limits."""
        if node.lines is not None:
            found = node.masks[BASE]
            if node.held_back:
                found &= ~((node.held_back & self._ones) * self._every)
        else:
            found = 0
            for _, _, child in node.order:
                below = child.startable
                found |= self._startable(child) if below is None else below
        return found

    def _look_at_limits(self, node: Node) -> None:
        """Find what a limit of slots lets start: who waits for it alone holds up others."""
        due, startable = self._due_below(node), self._startable_below(node)
        node.permitted = found = self._limits.permitted(node, due | startable, self._width)
        node.due, node.startable = due & found, startable & found

    def permitted(self, node: Node, level: int) -> int:
        """The shapes that a node's own limits let start at a level."""
        shift = level * self._width
        if not node.keeps_room:
            return self._within_job_limit(node, self._ones << shift) >> shift
        if node.due is None or node.startable is None:
            self._look_at_limits(node)
        return node.permitted >> shift & self._ones

    def _within_job_limit(self, node: Node, found: int) -> int:
        """What its limit of jobs lets start, of a node without a limit of slots."""
        return found & self._limits.permitted(node, 0, self._width) if node.is_limited else found

    def _add_startable(self, leaf: Node, shape: int, bit: int) -> None:
        """Keep what is remembered true where a user began to ask for a shape at a level."""
        for node in leaf.ancestry:
            if node.startable is None:  # nobody asked while nothing waited here
                node.look_anew()
                return
            if node.held_back >> shape & 1:
                return
            if node.keeps_room:
                if not node.permitted & bit:
                    node.look_anew()  # it may be one for whom room is to be kept
                    return
            elif not self._within_job_limit(node, bit):
                return
            node.startable |= bit

    def _remove_startable(self, leaf: Node, bit: int) -> None:
        """The same where a user ceased to ask for it."""
        for node in leaf.ancestry:
            if node.startable is None:
                node.look_anew()
                return
            if not node.startable & bit:
                if node.keeps_room:
                    node.look_anew()
                return
            if node.masks[BASE] & bit:
                for _, _, child in node.order:
                    if child.startable is not None and child.startable & bit:
                        return  # somebody else there asks for it
            node.startable &= ~bit

    def _allowed(self, leaf: Node, level: int, mask: int) -> int:
        """The shapes in ``mask`` that all limits let a user start at a level."""
        if leaf.is_limited_anywhere:
            for node in leaf.ancestry:
                mask &= self.permitted(node, level)
        return mask & self._ones

    def permits(self, leaf: Node, level: int, number: int) -> bool:
        """Whether no limit is in the way of a job of this user."""
        return bool(self._allowed(leaf, level, 1 << number))

    def is_first(self, node: Node, level: int) -> bool:
        """Whether nobody below a node waits at a higher level for nothing but its limits."""
        shift = (level + 1) * self._width
        waiting = self._due_below(node) | self._startable_below(node)
        if not waiting >> shift:
            return True
        could_ever = (self._limits.could_ever(node) & self._ones) * self._every
        blocked = waiting & could_ever & ~self._limits.permitted(node, waiting, self._width)
        return not blocked >> shift

    # The bits

    def _set_width(self, width: int) -> None:
        self._width = width
        self._ones = (1 << width) - 1
        self._every = sum(1 << level * width for level in range(LEVELS))
        self._below = [self._every & (1 << level * width) - 1 for level in range(LEVELS)]

    def _widen(self, shape: int) -> None:
        """Give each level more bits, for shapes that are new."""
        width = self._width
        while width <= shape:
            width *= 2
        self._set_width(width)
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            node.startable = node.due = None
            for table in (BASE, AGED):
                node.masks[table] = sum(
                    1 << level * width + known for level, known in node.counts[table]
                )
