"""The tree of organisations, teams and users: what each has used, may use, and waits for."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from math import exp, log
from typing import TYPE_CHECKING

from st_controller.domain.scheduling.model import Policy, Share
from st_controller.domain.scheduling.nodes import AGED, BASE, LEVELS, NEGLIGIBLE, Node
from st_controller.domain.scheduling.shapes import Shapes

if TYPE_CHECKING:
    from st_controller.domain.scheduling.lines import Line

__all__ = ["Node", "Tenants"]

EXCESS = 1.01
"""What somebody may have had, over its share, before others take precedence where it would fit and
they do not."""


class Tenants:
    """The tree, and who is to be served next."""

    def __init__(self, policy: Policy, shapes: Shapes) -> None:
        self._policy = policy
        self._shapes = shapes
        self._decay = log(2) / policy.half_life
        self._nodes: dict[str, Node] = {}
        self._shares: dict[str, Share] = {}
        self.root = self._nodes[""] = Node("", None, Share())
        self.fleet_rate = 0.0
        """Price of all slots for one second."""
        self.is_settled = False
        """Whether who is idle is known: not while what was there before is being loaded."""

    def nodes(self) -> Iterator[Node]:
        """All nodes, parents before children."""
        return iter(list(self._nodes.values()))

    def find(self, path: str) -> Node | None:
        """A node that anything is known of."""
        return self._nodes.get(path)

    def node(self, path: str, now: float) -> Node:
        """The node of ``org/team/user`` or a part of it; made where it is new."""
        found = self._nodes.get(path)
        if found is None:
            above, _, name = path.rpartition("/")
            parent = self.node(above, now)
            found = Node(path, parent, self._shares.get(path, Share()), seen=now)
            parent.children[name] = found
            self._nodes[path] = found
        return found

    def user(self, path: str, now: float) -> Node:
        """The leaf of a user."""
        leaf = self.node(path, now)
        if leaf.lines is None:
            leaf.lines = {}
        return leaf

    def set_share(self, path: str, share: Share) -> None:
        """Change weight and limits of a node, known or not."""
        self._shares[path] = share
        node = self._nodes.get(path)
        if node is None:
            return
        if node.parent and node.is_active:
            node.parent.weights += share.weight - node.share.weight
        node.share = share
        node.is_limited = share.max_jobs is not None or share.max_slots is not None
        node.forget_vain()
        self._reorder(node)

    def shared(self) -> set[str]:
        """Paths for which a weight or limits were set."""
        return set(self._shares)

    def share(self, path: str) -> Share:
        """Weight and limits of a node."""
        return self._shares.get(path, Share())

    # Use

    def start(self, leaf: Node, slots: int, rate: float, now: float) -> None:
        """A job of this user takes slots of this price for one second."""
        self._use(leaf, 1, slots, rate, now)

    def stop(self, leaf: Node, slots: int, rate: float, now: float) -> None:
        """A job gives its slots back."""
        self._use(leaf, -1, -slots, -rate, now)

    def promise(self, leaf: Node, rate: float, now: float) -> None:
        """Slots are reserved for a job of this user, or (negative) not any more."""
        leaf.forget_vain_within()
        for node in leaf.ancestry:
            was_active = node.is_active
            left = node.promised + rate
            node.promised = left if left > NEGLIGIBLE * abs(rate) else 0.0
            if was_active != node.is_active:
                self._note_activity(node, was_active, now)
            if node.waiting:
                self._reorder(node)

    def refund(self, leaf: Node, rate: float, since: float, now: float) -> None:
        """Take back the charge for slots that were held in vain since a moment."""
        charged = rate * self._grown(now - since)
        leaf.forget_vain()
        for node in leaf.ancestry:
            self._accrue(node, now)
            self._change_claim(node, usage=max(0.0, node.usage - charged))
            self._reorder(node)

    def set_usage(self, path: str, usage: float, forfeited: float, now: float) -> None:
        """Take over what is known of the past of a node."""
        node = self.node(path, now)
        node.seen = now
        self._change_claim(node, usage=usage, forfeited=forfeited)
        node.forget_vain()
        self._reorder(node)

    def settle(self, now: float) -> None:
        """Bring all usage up to this moment, and forget tenants of whom nothing is left."""
        for node in self.nodes():
            self._accrue(node, now)
        for node in self.nodes():
            node.vain = [0] * (2 * LEVELS)
            if node.children:
                self._settle_children(node)
        for node in reversed(list(self._nodes.values())):
            if not node.is_active and not node.children and node.claim < NEGLIGIBLE:
                self._drop(node)

    def _settle_children(self, node: Node) -> None:
        """Add up and sort the children anew, at the cost of one sort."""
        node.claims, node.weights = 0.0, 0.0
        node.order = []
        for child in node.children.values():
            if child.is_active:
                node.claims += child.usage + child.forfeited
                node.weights += child.share.weight
            if child.waiting:
                child.key = self._key(child)
                node.order.append((child.key, child.path, child))
        node.order.sort()

    def settled(self, now: float) -> Iterator[Node]:
        """All nodes, with their usage at this moment."""
        self.settle(now)
        return self.nodes()

    # What waits

    def wait(self, leaf: Node, count: int, now: float) -> None:
        """Jobs of this user began (or, negative, ceased) to wait."""
        for node in leaf.ancestry:
            before, node.waiting = node.waiting, node.waiting + count
            if not ((before and node.waiting) or node.running_jobs or node.promised):
                node.forget_vain_within()
                self._note_activity(node, bool(before), now)
            if bool(node.waiting) != (node.key is not None):
                self._reorder(node)

    def hold_shape(self, leaf: Node, table: int, level: int, shape: int) -> None:
        """A line of this user holds jobs of a shape from now on."""
        leaf.forget_vain_shape(level, shape)
        for node in leaf.ancestry:
            counts = node.counts[table][level]
            counts[shape] = known = counts.get(shape, 0) + 1
            if known > 1:
                return
            node.masks[table][level] |= 1 << shape

    def drop_shape(self, leaf: Node, table: int, level: int, shape: int) -> None:
        """A line of this user holds none any more."""
        for node in leaf.ancestry:
            counts = node.counts[table][level]
            if counts[shape] > 1:
                counts[shape] -= 1
                return
            del counts[shape]
            node.masks[table][level] &= ~(1 << shape)

    # Who is next

    def pick(self, mask: int, fillers: int = 0) -> "tuple[Line, int] | None":
        """The line to be served next among the shapes in ``mask``, and at which level.

        ``fillers`` are further shapes, for those within their share alone.

        The highest level first. Within it those who are within their share on every step of the
        tree, then all; among each, from the root down, whoever has had the least for its weight.
        So where the head of an organisation's least served user does not fit, its turn does not
        fall to a user of it who has had too much already while others have not.
        Levels reached by waiting count only for those within their share: who has had more is
        not starved, and must not overtake those who have had less by having queued more.
        """
        root = self.root
        mask = root.allowed(mask, self._shapes)
        more = mask | root.allowed(fillers, self._shapes)
        base, aged = root.masks
        for level in range(LEVELS - 1, -1, -1):
            waiting = base[level] | aged[level]
            if not waiting & more:
                continue
            found = None
            if waiting & more & ~root.vain[level + LEVELS]:
                found = self._descend(root, level, waiting & more, within=True)
            if found is None and base[level] & mask & ~root.vain[level]:
                found = self._descend(root, level, base[level] & mask, within=False)
            if found is not None:
                return found, level
        return None

    def passed_over(self, leaf: Node, level: int, mask: int) -> "tuple[Line, bool] | None":
        """The line of somebody within its share whom a user that is over its own passes by.

        On each step of the tree at which the user, or what it belongs to, has had too much, the
        siblings are looked at that have had less; also tells whether one has a reservation.
        """
        for node in reversed(leaf.ancestry):
            parent = node.parent
            if parent is None:
                continue
            mask = parent.allowed(mask, self._shapes)
            if node.is_within_share:
                continue
            less = node.claim / node.share.weight / EXCESS
            for _, _, sibling in parent.order:
                if sibling is node:
                    break
                waiting = sibling.masks[BASE][level] & mask
                if waiting and sibling.claim <= less * sibling.share.weight:
                    allowed = sibling.allowed(waiting, self._shapes)
                    if sibling.lines is None:
                        found = self._descend(sibling, level, allowed, within=False)
                    else:
                        found = _earliest(sibling, level, allowed) if allowed else None
                    if found is not None:
                        return found, bool(sibling.promised)
        return None

    def _descend(self, node: Node, level: int, mask: int, *, within: bool) -> "Line | None":
        """The line of the least served below ``node``; ``within``: of those within their share."""
        at = level + LEVELS if within else level
        mask &= ~node.vain[at]
        if not mask:
            return None
        fair = node.fair if within else 0.0
        for _, _, child in node.order:
            base, aged = child.masks
            if within:
                waiting = (base[level] | aged[level]) & mask
            else:
                waiting = base[level] & mask & ~child.held_back
            if not waiting or not waiting & ~child.vain[at]:
                continue
            if within and child.usage + child.forfeited > fair * child.share.weight:
                continue
            allowed = child.allowed(mask, self._shapes) if child.is_limited else mask
            if not waiting & allowed:
                continue
            if child.lines is not None:
                found = _earliest(child, level, allowed if within else allowed & ~child.held_back)
            else:
                found = self._descend(child, level, allowed & waiting, within=within)
            if found is not None:
                return found
        node.vain[at] |= mask
        return None

    # The arithmetic of shares

    def _use(self, leaf: Node, jobs: int, slots: int, rate: float, now: float) -> None:
        if jobs < 0 and any(node.is_limited for node in leaf.ancestry):
            leaf.forget_vain()
        else:
            leaf.forget_vain_within()
        for node in leaf.ancestry:
            self._accrue(node, now)
            before, node.running_jobs = node.running_jobs, node.running_jobs + jobs
            node.running_slots += slots
            node.rate = node.rate + rate if node.running_jobs else 0.0
            if not ((before and node.running_jobs) or node.waiting or node.promised):
                self._note_activity(node, bool(before), now)
            if node.waiting:
                self._reorder(node)

    def _accrue(self, node: Node, now: float) -> None:
        """Decay what was used and add what ran since; exact for a constant rate."""
        elapsed = now - node.seen
        if elapsed <= 0:
            return
        node.seen = now
        before = node.usage + node.forfeited
        if not before and not node.rate:
            return
        factor = exp(-self._decay * elapsed)
        node.usage = node.usage * factor + node.rate * (1 - factor) / self._decay
        if node.forfeited:
            node.forfeited *= factor
        if node.parent and node.is_active:
            node.parent.claims += node.usage + node.forfeited - before

    def _grown(self, seconds: float) -> float:
        """What a second's price of 1 amounts to after so long, decayed on the way."""
        return (1 - exp(-self._decay * seconds)) / self._decay

    def _change_claim(self, node: Node, usage: float, forfeited: float | None = None) -> None:
        before = node.usage + node.forfeited
        node.usage = usage
        if forfeited is not None:
            node.forfeited = forfeited
        if node.parent and node.is_active:
            node.parent.claims += node.usage + node.forfeited - before

    def _note_activity(self, node: Node, was_active: bool, now: float) -> None:
        parent = node.parent
        if parent is None or was_active == node.is_active:
            return
        if not node.is_active:
            parent.claims -= node.claim
            parent.weights -= node.share.weight
            if parent.weights < 1e-9:
                parent.claims = parent.weights = 0.0
            return
        self._accrue(node, now)
        if self.is_settled and parent.weights > 0:
            self._forfeit(node, parent)
        parent.claims += node.claim
        parent.weights += node.share.weight

    def _forfeit(self, node: Node, parent: Node) -> None:
        """A node that was idle may catch up on a bounded part of the share that it left to others.

        Without this, one that comes new, or back after weeks, would hold everybody else off
        until it had used as much as they.
        """
        weights = parent.weights + node.share.weight
        rise = self._policy.catch_up * self._due(parent) / weights
        least = (parent.claims / parent.weights - rise) * node.share.weight
        if node.claim < least:
            node.forfeited = least - node.usage

    def _due(self, node: Node) -> float:
        """The price for one second of what is due to a node while all that are active want more."""
        if node.parent is None:
            return self.fleet_rate
        weights = max(node.parent.weights, node.share.weight)
        return self._due(node.parent) * node.share.weight / weights

    def _reorder(self, node: Node) -> None:
        """Put a node where it belongs in the order of its parent."""
        parent = node.parent
        if parent is None:
            return
        if node.key is not None:
            place = bisect_left(parent.order, (node.key, node.path))
            del parent.order[place]
            node.key = None
        if node.waiting:
            node.key = self._key(node)
            insort(parent.order, (node.key, node.path, node))

    def _key(self, node: Node) -> float:
        ahead = (node.rate + node.promised) * self._policy.horizon
        return (node.usage + node.forfeited + ahead) / node.share.weight

    def _drop(self, node: Node) -> None:
        if node.parent is not None:
            del node.parent.children[node.path.rpartition("/")[2]]
            del self._nodes[node.path]


def _earliest(leaf: Node, level: int, mask: int) -> "Line | None":
    """The line of a user whose first job was submitted first."""
    best: Line | None = None
    lines = leaf.lines or {}
    here = leaf.masks[BASE][level] & mask
    while here:  # as ``numbers`` does; this is the innermost loop of all
        lowest = here & -here
        here ^= lowest
        line = lines[level, lowest.bit_length() - 1]
        if best is None or line.turn < best.turn:
            best = line
    aged = leaf.masks[AGED]
    for reached in range(level, LEVELS - 1):
        there = aged[reached] & mask
        aged_lines = leaf.aged_lines[reached]
        while there:
            lowest = there & -there
            there ^= lowest
            for line in aged_lines[lowest.bit_length() - 1]:
                if best is None or line.turn < best.turn:
                    best = line
    return best
