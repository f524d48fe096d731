"""Where something fits now: the groups with free slots, and the search for a place in them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from st_controller.domain.scheduling.hosts import Group, Host
from st_controller.domain.scheduling.model import Grant, Shape
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
            return self._gang(number, shape, wants)
        if wants:
            host = self._best(self._fitting(number, shape.slots), wants)
        else:
            host = self._tightest(number)
        return (Grant(host.id, host.choose(number, shape.slots)),) if host else None

    def with_room(self, number: int, like: Host) -> Iterator[Host]:
        """Workers of equal accelerators on which one node fits now, the tightest first."""
        alike = (groups for groups in self._reach.by_accelerators(number) if like.group in groups)
        openings = self._fitting(number, self._shapes.known[number].slots, next(alike, []))
        for opening in sorted(openings, key=lambda opening: opening[:3]):
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

    def _fitting(
        self, number: int, slots: int, groups: Iterable[Group] | None = None
    ) -> list[Opening]:
        """All buckets into which one node fits, in the order of their groups."""
        bit = 1 << number
        found: list[Opening] = []
        for group in self._reach.able(number) if groups is None else groups:
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
        equal.sort(key=lambda opening: (opening.price, opening.place))
        holders = self._best_holders(wants, equal, 1)
        return holders[0] if holders else next(iter(equal[0].bucket.values()))

    def _best_holders(
        self, wants: Sequence[str], openings: list[Opening], enough: int
    ) -> list[Host]:
        """Workers that hold some of it: those with the most, then with what is named first.

        No more are sought once there are ``enough`` that hold whatever of it is anywhere.
        """
        known = [holders for want in wants if (holders := self.holders.get(want))]
        found: dict[str, Host] = {}
        for host in self._some_holders(known, openings):
            if host.id not in found:
                found[host.id] = host
                enough -= all(host.id in holders for holders in known)
                if enough <= 0:
                    break
        return sorted(found.values(), key=lambda host: -sum(host.id in has for has in known))

    def _some_holders(
        self, known: list[dict[str, Host]], openings: list[Opening]
    ) -> Iterator[Host]:
        for holders in known:
            for opening in openings:
                fewer, others = sorted((holders, opening.bucket), key=len)
                for worker_id, host in islice(fewer.items(), MOST_LOOKED_AT):
                    if worker_id in others:
                        yield host

    def _gang(self, number: int, shape: Shape, wants: Sequence[str]) -> tuple[Grant, ...] | None:
        """As many workers of equal accelerators as the gang has nodes, all or nothing.

        Chosen as one worker is, by what all of them together leave free, hold, and cost.
        """
        best: tuple[tuple[int, int, float, int], list[Host]] | None = None
        for groups in self._reach.by_accelerators(number):
            openings = self._fitting(number, shape.slots, groups)
            if sum(len(opening.bucket) for opening in openings) < shape.nodes:
                continue
            hosts = list(islice(self._in_order(openings, wants, shape.nodes), shape.nodes))
            left = sum(sum(host.vector) for host in hosts)
            held = sum(host.id in self.holders.get(want, ()) for host in hosts for want in wants)
            here = (left, -held, sum(host.group.price for host in hosts), groups[0].place)
            if best is None or here < best[0]:
                best = here, hosts
        if best is None:
            return None
        return tuple(Grant(host.id, host.choose(number, shape.slots)) for host in best[1])

    def _in_order(
        self, openings: list[Opening], wants: Sequence[str], nodes: int
    ) -> Iterator[Host]:
        """The workers of some buckets: the tightest first, then those that hold what is wanted."""
        openings.sort(key=lambda opening: opening[:3])
        for _, alike in groupby(openings, key=lambda opening: opening.left):
            equal = list(alike)
            holders = self._best_holders(wants, equal, nodes) if wants else []
            yield from holders
            first = {host.id for host in holders}
            for opening in equal:
                yield from (host for host in opening.bucket.values() if host.id not in first)
