"""The tree of organisations, teams and users: what each has used, may use, and waits for."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from math import exp, log
from typing import TYPE_CHECKING

from st_controller.domain.scheduling.limits import Limits
from st_controller.domain.scheduling.model import Policy, Share
from st_controller.domain.scheduling.nodes import NEGLIGIBLE, Node, Place
from st_controller.domain.scheduling.shapes import Shapes
from st_controller.domain.scheduling.turns import Turns

if TYPE_CHECKING:
    from st_controller.domain.scheduling.reservations import Reservation

__all__ = ["Node", "Tenants"]


class Tenants:
    """The tree, and what each node of it has had."""

    def __init__(self, policy: Policy, shapes: Shapes) -> None:
        self._policy = policy
        self._decay = log(2) / policy.half_life
        self._nodes: dict[str, Node] = {}
        self._shares: dict[str, Share] = {}
        self._keep_room: set[str] = set()
        """Paths with a limit of slots."""
        self.root = self._nodes[""] = Node("", None, Share())
        self.limits = Limits(shapes)
        self.turns = Turns(self.root, self.limits)
        """Who is to be served next."""
        self.fleet_rate = 0.0
        """Price of all slots for one second."""
        self._settled_at = float("inf")
        """When all usage was last brought up to date; infinite: never."""
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
        if share.max_slots is None:
            self._keep_room.discard(path)
        else:
            self._keep_room.add(path)
        node = self._nodes.get(path)
        if node is None:
            return
        if node.parent and node.is_active:
            node.parent.weights += share.weight - node.share.weight
        node.take_share(share)
        node.look_anew()
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

    def promise(self, leaf: Node, reservation: "Reservation", rate: float, now: float) -> None:
        """Slots of this price for one second are reserved for a job of this user."""
        for node in leaf.ancestry:
            node.kept.append(reservation)
        self._promise(leaf, rate, now)

    def take_back(self, leaf: Node, reservation: "Reservation", rate: float, now: float) -> None:
        """They are so no more."""
        for node in leaf.ancestry:
            node.kept.remove(reservation)
        self._promise(leaf, -rate, now)

    def _promise(self, leaf: Node, rate: float, now: float) -> None:
        for node in leaf.ancestry:
            was_active = node.is_active
            left = node.promised + rate
            node.promised = left if left > NEGLIGIBLE * abs(rate) else 0.0
            if was_active != node.is_active:
                self._note_activity(node, was_active, now)
            if node.waiting:
                self._reorder(node)
        if leaf.is_limited_anywhere:
            leaf.look_anew()

    def correct(
        self,
        leaf: Node,
        rate: float,
        since: float,
        now: float,
        used: tuple[float, float] | None,
    ) -> None:
        """Charge slots that were charged from ``since`` until now for the time of their use alone.

        None: they were held in vain.
        """
        charged = rate * self._grown(now - since)
        if used is not None:
            begun, ended = used
            charged -= rate * (self._grown(now - begun) - self._grown(now - ended))
        leaf.look_anew()
        for node in leaf.ancestry:
            self._accrue(node, now)
            self._change_claim(node, usage=max(0.0, node.usage - charged))
            self._reorder(node)

    def set_usage(self, path: str, usage: float, forfeited: float, now: float) -> None:
        """Take over what is known of the past of a node."""
        node = self.node(path, now)
        node.seen = now
        self._change_claim(node, usage=usage, forfeited=forfeited)
        node.look_anew()
        self._reorder(node)

    def settle(self, now: float) -> None:
        """Bring all usage up to this moment, and forget tenants of whom nothing is left."""
        nodes = list(self._nodes.values())
        for node in nodes:
            self._accrue(node, now)
        forgiven = 1 - exp(-self._decay * max(0.0, now - self._settled_at))
        self._settled_at = now
        self.turns.note_settled()
        for node in nodes:
            node.due = None
            if self._keep_room:
                node.startable = node.ends = None
            if node.children:
                self._keep_apart(node, forgiven)
                self._settle_children(node)
        for node in reversed(nodes):
            is_idle = not (node.waiting or node.children or node.is_active)
            if is_idle and max(node.usage, node.claim) < NEGLIGIBLE:
                self._drop(node)

    def _keep_apart(self, node: Node, forgiven: float) -> None:
        """Take back what decay forgave of the distance between children that all want more.

        Who is ahead of its siblings, be it by the half of a large job that it is ahead on average,
        would else be forgiven that again and again: over a month of a half-life of a week it had
        four times as much too much. Whoever is further behind than one that was idle may catch up
        is left to decay: it cannot have wanted what there was.
        """
        wanting = [child for child in node.children.values() if child.waiting or child.promised]
        wanting, level = self._abreast(node, wanting)
        for child in wanting:
            usage, forfeited = child.usage, child.forfeited
            kept = (usage + forfeited - level * child.share.weight) * forgiven
            child.forfeited = forfeited = max(forfeited + kept, -usage)
            child.reckoned = usage + forfeited + child.ahead

    def _abreast(self, node: Node, children: list[Node]) -> tuple[list[Node], float]:
        """Those not too far behind the rest, and what they have had for their weight on average."""
        while children:
            weights = sum([child.share.weight for child in children])
            level = sum([child.usage + child.forfeited for child in children]) / weights
            least = level - self._policy.catch_up * self._due(node) / weights
            near = [
                child
                for child in children
                if child.usage + child.forfeited >= least * child.share.weight
            ]
            if len(near) == len(children):
                return near, level
            children = near
        return [], 0.0

    def _settle_children(self, node: Node) -> None:
        """Add up and sort the children anew, at the cost of one sort."""
        claims = weights = 0.0
        order: list[Place] = []
        for child in node.children.values():
            waits = child.waiting
            if waits or child.is_active:
                claims += child.reckoned
                weights += child.share.weight
            if waits:
                child.key = key = self._key(child)
                order.append((key, child.path, child))
        order.sort()
        node.claims, node.weights, node.order = claims, weights, order

    def settled(self, now: float) -> Iterator[Node]:
        """All nodes, with their usage at this moment."""
        self.settle(now)
        return self.nodes()

    # What waits

    def wait(self, leaf: Node, count: int, now: float) -> None:
        """Jobs of this user began (or, negative, ceased) to wait."""
        for node in leaf.ancestry:
            before = node.waiting
            node.waiting = after = before + count
            if before and after:
                continue
            if not (node.running_jobs or node.promised):
                self._note_activity(node, bool(before), now)
            self._reorder(node)

    # The arithmetic of shares

    def _use(self, leaf: Node, jobs: int, slots: int, rate: float, now: float) -> None:
        if leaf.is_limited_anywhere:
            leaf.look_anew()
        else:
            for node in leaf.above:  # who of their children is within its share
                node.due = None
        horizon = self._policy.horizon
        for node in leaf.ancestry:
            if now > node.seen:
                self._accrue(node, now)
            before = node.running_jobs
            node.running_jobs = after = before + jobs
            node.running_slots += slots
            node.rate = coming = node.rate + rate if after else 0.0
            more = coming * horizon - node.ahead
            node.ahead += more
            node.reckoned += more
            parent = node.parent
            if parent is None:
                continue
            if before or node.waiting or node.promised:
                parent.claims += more
            if node.waiting:
                self._reorder(node)
            elif not ((before and after) or node.promised):
                self._note_activity(node, bool(before), now)

    def _accrue(self, node: Node, now: float) -> None:
        """Decay what was used and add what ran since; exact for a constant rate."""
        elapsed = now - node.seen
        if elapsed <= 0:
            return
        node.seen = now
        usage, rate, forfeited = node.usage, node.rate, node.forfeited
        if not (usage or rate or forfeited):
            return
        decay = self._decay
        factor = exp(-decay * elapsed)
        node.usage = usage = usage * factor + rate * (1 - factor) / decay
        if forfeited:
            node.forfeited = forfeited = forfeited * factor
        before = node.reckoned
        node.reckoned = reckoned = usage + forfeited + node.ahead
        parent = node.parent
        if parent is not None and (node.waiting or node.running_jobs or node.promised):
            parent.claims += reckoned - before

    def _grown(self, seconds: float) -> float:
        """What a second's price of 1 amounts to after so long, decayed on the way."""
        return (1 - exp(-self._decay * seconds)) / self._decay

    def _change_claim(self, node: Node, usage: float, forfeited: float | None = None) -> None:
        node.usage = usage
        if forfeited is not None:
            node.forfeited = forfeited
        before, node.reckoned = node.reckoned, node.usage + node.forfeited + node.ahead
        if node.parent and node.is_active:
            node.parent.claims += node.reckoned - before

    def _note_activity(self, node: Node, was_active: bool, now: float) -> None:
        parent = node.parent
        if parent is None or was_active == node.is_active:
            return
        parent.look_anew_within_share()
        if not node.is_active:
            parent.claims -= node.reckoned
            parent.weights -= node.share.weight
            if parent.weights < 1e-9:
                parent.claims = parent.weights = 0.0
            return
        self._accrue(node, now)
        if self.is_settled and parent.weights > 0:
            self._forfeit(node, parent)
        parent.claims += node.reckoned
        parent.weights += node.share.weight

    def _forfeit(self, node: Node, parent: Node) -> None:
        """A node that was idle may catch up on a bounded part of the share that it left to others.

        Without this, one that comes new, or back after weeks, would hold everybody else off
        until it had used as much as they.
        """
        weights = parent.weights + node.share.weight
        rise = self._policy.catch_up * self._due(parent) / weights
        # What runs now is left out: it ends, and would leave the newcomer over its share.
        had = (parent.claims - parent.ahead) / parent.weights
        least = (had - rise) * node.share.weight
        if node.claim < least:
            node.forfeited = least - node.usage
            node.reckoned = least + node.ahead

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
        before = node.key
        if not node.waiting:
            key = None
        elif node.promised:
            key = self._key(node)
        else:
            key = node.reckoned / node.share.weight
        if before == key:
            return
        node.key, order = key, parent.order
        if before is not None:
            place = bisect_left(order, (before, node.path))
            if (
                key is not None
                and (place == 0 or order[place - 1][0] < key)
                and (place + 1 == len(order) or key < order[place + 1][0])
            ):
                order[place] = (key, node.path, node)  # it stays where it stood
                return
            del order[place]
        if key is not None:
            insort(order, (key, node.path, node))

    def _key(self, node: Node) -> float:
        if not node.promised:
            return node.reckoned / node.share.weight
        return (node.reckoned + node.promised * self._policy.horizon) / node.share.weight

    def _drop(self, node: Node) -> None:
        if node.parent is not None:
            del node.parent.children[node.path.rpartition("/")[2]]
            del self._nodes[node.path]
