"""Where something fits now: the groups with free slots, and the search for a place in them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from st_controller.domain.scheduling.hosts import Group, Host
from st_controller.domain.scheduling.model import Grant, Shape, SlotKind
from st_controller.domain.scheduling.reach import Reach
from st_controller.domain.scheduling.shapes import Shapes

MOST_LOOKED_AT = 64
"""Workers of one bucket that are compared where they differ in nothing but what they hold."""


class Opening(NamedTuple):
    """A bucket into which one node fits; the least is the best."""

    left: int
    """Free slots that would remain on the worker."""
    price: float
    place: int
    """Keeps the order stable where all else is equal."""
    group: Group
    bucket: dict[str, Host]


class Openings:
    """The workers that have room, as buckets of equal ones, and what fits there."""

    def __init__(self, shapes: Shapes, reach: Reach) -> None:
        self._shapes, self._reach = shapes, reach
        self._groups: dict[int, Group] = {}
        """Those in which anything fits now, by their place."""
        self.holders: defaultdict[str, dict[str, Host]] = defaultdict(dict)
        """By content the workers that have it stored."""
        self.mask = 0
        """The shapes of which at least one node fits now on a worker that is not reserved."""

    def note(self, group: Group, before: int) -> None:
        """What fits in a group is not what it was."""
        now = group.open
        if now == before:
            return
        if now:
            self._groups[group.place] = group
        else:
            self._groups.pop(group.place, None)
        lost = before & ~now
        for other in self._groups.values():
            if not lost:
                break
            lost &= ~other.open
        self.mask = self.mask & ~lost | now

    def clear(self) -> None:
        """Forget all groups, which are made anew."""
        self._groups.clear()
        self.mask = 0

    # Where a job fits

    def place(self, number: int, wants: Sequence[str]) -> tuple[Grant, ...] | None:
        """Slots for all nodes of a job of this shape, or none.

        Best fit first: the worker on which the fewest slots remain free; then one that holds
        what the job wants; then the cheapest.
        """
        shape = self._shapes.known[number]
        if shape.nodes > 1:
            return self._gang(number, shape, self._fitting(number, shape.slots))
        if wants:
            host = self._best(self._fitting(number, shape.slots), wants)
        else:
            host = self._tightest(number)
        return (Grant(host.id, host.choose(number, shape.slots)),) if host else None

    def with_room(self, number: int, kinds: tuple[SlotKind, ...]) -> Iterator[Host]:
        """Workers of this hardware on which one node fits now, the tightest first."""
        openings = self._fitting(number, self._shapes.known[number].slots)
        for opening in sorted(openings, key=lambda opening: opening[:3]):
            if opening.group.kinds == kinds:
                yield from opening.bucket.values()

    def _tightest(self, number: int) -> Host | None:
        """As ``_best`` for a job to which nothing else matters."""
        bit, found, best = 1 << number, None, (0, 0.0, 0)
        able = self._reach.able(number)
        for group in able if len(able) < len(self._groups) else self._groups.values():
            if group.open & bit:
                for vector, bucket in group.buckets.items():
                    if group.bits[vector] & bit:
                        here = (sum(vector), group.price, group.place)
                        if found is None or here < best:
                            found, best = bucket, here
        return next(iter(found.values())) if found else None

    def _fitting(self, number: int, slots: int) -> list[Opening]:
        """All buckets into which one node fits, in the order of their groups."""
        bit = 1 << number
        found: list[Opening] = []
        for group in self._reach.able(number):
            if group.open & bit:
                for vector, bucket in group.buckets.items():
                    if group.bits[vector] & bit:
                        left = sum(vector) - slots
                        found.append(Opening(left, group.price, group.place, group, bucket))
        return found

    def _best(self, openings: list[Opening], wants: Sequence[str]) -> Host | None:
        if not openings:
            return None
        tightest = min(opening.left for opening in openings)
        equal = [opening for opening in openings if opening.left == tightest]
        for want in wants:
            for host in self._some_holders(want, equal):
                return host
        cheapest = min(equal, key=lambda opening: (opening.price, opening.place))
        return next(iter(cheapest.bucket.values()))

    def _some_holders(self, want: str, openings: list[Opening]) -> Iterator[Host]:
        holders = self.holders.get(want)
        if not holders:
            return
        for opening in sorted(openings, key=lambda opening: (opening.price, opening.place)):
            fewer, others = sorted((holders, opening.bucket), key=len)
            for looked_at, (worker_id, host) in enumerate(fewer.items()):
                if worker_id in others:
                    yield host
                if looked_at >= MOST_LOOKED_AT:
                    break

    def _gang(self, number: int, shape: Shape, openings: list[Opening]) -> tuple[Grant, ...] | None:
        """As many equal workers as the gang has nodes, the tightest first; all or nothing."""
        by_hardware: dict[tuple[SlotKind, ...], list[Opening]] = defaultdict(list)
        for opening in openings:
            by_hardware[opening.group.kinds].append(opening)
        for alike in by_hardware.values():
            alike.sort(key=lambda opening: opening[:3])
            if sum(len(opening.bucket) for opening in alike) >= shape.nodes:
                hosts = [host for opening in alike for host in opening.bucket.values()]
                return tuple(
                    Grant(host.id, host.choose(number, shape.slots))
                    for host in hosts[: shape.nodes]
                )
        return None
