"""All workers, indexed so that a place for a job is found without looking at each of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from st_controller.domain.scheduling.hosts import FreeSlots, Group, Host
from st_controller.domain.scheduling.model import Grant, Shape, SlotKind, WorkerCapacity
from st_controller.domain.scheduling.shapes import Shapes, numbers

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


class Fleet:
    """The workers that there are."""

    def __init__(self) -> None:
        self.shapes = Shapes()
        self._hosts: dict[str, Host] = {}
        self._groups: dict[object, Group] = {}
        self._open_groups: dict[object, Group] = {}
        """Groups in which anything fits now."""
        self._holders: dict[str, dict[str, Host]] = defaultdict(dict)
        self._absent: dict[str, dict[str, tuple[tuple[int, ...], float]]] = defaultdict(dict)
        """What jobs hold of workers that take no jobs now: slots, and until when as expected."""
        self._label_names: set[str] = set()
        self._open: int | None = None
        self._satisfiable: int | None = None
        self._rivals: dict[int, int] = {}
        self._able: dict[int, list[Group]] = {}
        self._alike: dict[int, int] = {}
        self._slots_for: dict[int, int] = {}
        self._places = 0
        self.rate = 0.0
        """Price of all slots that take jobs, for one second."""

    def get(self, worker_id: str) -> Host | None:
        """A worker that takes jobs or still runs some."""
        return self._hosts.get(worker_id)

    def hosts(self) -> Iterable[Host]:
        """Every worker that takes jobs or still runs some."""
        return self._hosts.values()

    def groups(self) -> Iterable[Group]:
        """Workers that look alike, together."""
        return self._groups.values()

    def able(self, number: int) -> list[Group]:
        """The groups of which a worker could run one node if nothing else ran there."""
        found = self._able.get(number)
        if found is None:
            known = self.shapes.known
            found = [
                group
                for group in self._groups.values()
                if group.size and group.fits(group.full, known) >> number & 1
            ]
            self._able[number] = found
        return found

    def alike(self, number: int) -> int:
        """The shapes that could run on the same workers as this one, itself included."""
        found = self._alike.get(number)
        if found is None:
            able, found = self.able(number), 0
            for other in range(len(self.shapes.known)):
                found |= (self.able(other) == able) << other
            self._alike[number] = found
        return found

    def slots_for(self, number: int) -> int:
        """Slots of all workers that could run one node of a shape."""
        found = self._slots_for.get(number)
        if found is None:
            found = sum(group.size * sum(group.full) for group in self.able(number))
            self._slots_for[number] = found
        return found

    def idle_for(self, number: int) -> int:
        """Slots that are free and kept for nobody on workers that could run one node of a shape."""
        return sum(group.free for group in self.able(number))

    def number(self, shape: Shape) -> int:
        """The number of a shape, which is taken into account from now on."""
        found = self.shapes.find(shape)
        if found is not None:
            return found
        number = self.shapes.add(shape)
        names = {name for name, _ in shape.labels}
        for group in self._groups.values():
            before = group.open
            group.learn(shape)
            self._note(group, before)
        if names <= self._label_names:
            self._take_in(number, shape)
        else:
            self._label_names |= names
            self._regroup()
            self._forget()
        return number

    @property
    def open(self) -> int:
        """The shapes of which at least one node fits now on a worker that is not reserved."""
        if self._open is None:
            self._open = 0
            for group in self._open_groups.values():
                self._open |= group.open
        return self._open

    @property
    def satisfiable(self) -> int:
        """The shapes that would fit if nothing ran."""
        if self._satisfiable is None:
            self._satisfiable = 0
            for number, shape in enumerate(self.shapes.known):
                if self._could_ever(number, shape):
                    self._satisfiable |= 1 << number
        return self._satisfiable

    def rivals(self, number: int) -> int:
        """The shapes that compete with this one for workers, itself included."""
        found = self._rivals.get(number)
        if found is None:
            found = 1 << number
            for group in self._groups.values():
                if group.size and group.able >> number & 1:
                    found |= group.able
            self._rivals[number] = found
        return found

    def price(self, grants: Iterable[Grant]) -> float:
        """Price of one of these slots for one second, on average."""
        total, slots = 0.0, 0
        for grant in grants:
            host = self._hosts.get(grant.worker)
            total += len(grant.slots) * (host.capacity.price if host else 1.0)
            slots += len(grant.slots)
        return total / slots if slots else 1.0

    # Workers come and go

    def put(self, capacity: WorkerCapacity) -> Host:
        """Add a worker, or take over what changed about it; what it runs stays."""
        before = self._hosts.get(capacity.id)
        if before is not None:
            self._leave(before)
        host = Host.of(capacity, self._group_of(capacity))
        for job_id, (slots, until) in self._absent.pop(capacity.id, {}).items():
            host.occupy(job_id, slots, until)
        for job_id, hold in before.running.items() if before else ():
            host.occupy(job_id, hold.slots, hold.until)
        self._enter(host)
        return host

    def close(self, worker_id: str) -> None:
        """A worker takes no more jobs; it is forgotten once it runs none."""
        host = self._hosts.get(worker_id)
        if host is None:
            return
        self._leave(host)
        host.takes_jobs = False
        if not host.running:
            del self._hosts[worker_id]

    # Slots are taken and given back

    def occupy(self, job_id: str, grant: Grant, until: float) -> Host | None:
        """Give slots of a worker to a job; on one that takes none now they count once it does."""
        host = self._hosts.get(grant.worker)
        if host is None:
            self._absent[grant.worker][job_id] = (grant.slots, until)
            return None
        self._out(host)
        host.occupy(job_id, grant.slots, until)
        self._in(host)
        return host

    def release(self, job_id: str, worker_id: str) -> Host | None:
        """Take slots back from a job; the worker, if it is still here."""
        host = self._hosts.get(worker_id)
        if host is None or job_id not in host.running:
            self._absent[worker_id].pop(job_id, None)
            if not self._absent[worker_id]:
                del self._absent[worker_id]
            return None
        self._out(host)
        host.release(job_id)
        self._in(host)
        if not host.takes_jobs and not host.running:
            del self._hosts[worker_id]
        return host

    def reserve(self, host: Host, job_id: str | None) -> None:
        """Keep a worker for a job, out of the ordinary search; none: let it in again."""
        self._out(host)
        host.kept_for = job_id
        self._in(host)

    # Where a job fits

    def place(self, number: int, wants: Sequence[str]) -> tuple[Grant, ...] | None:
        """Slots for all nodes of a job of this shape, or none.

        Best fit first: the worker on which the fewest slots remain free; then one that holds
        what the job wants; then the cheapest.
        """
        shape = self.shapes.known[number]
        if shape.nodes > 1:
            return self._gang(number, shape, self._openings(number, shape.slots))
        if wants:
            host = self._best(self._openings(number, shape.slots), wants)
        else:
            host = self._tightest(number)
        return (Grant(host.id, host.choose(number, shape.slots)),) if host else None

    def _tightest(self, number: int) -> Host | None:
        """As ``_best`` for a job to which nothing else matters."""
        bit, found, best = 1 << number, None, (0, 0.0, 0)
        for group in self.able(number):
            if group.open & bit:
                for vector, bucket in group.buckets.items():
                    if group.bits[vector] & bit:
                        here = (sum(vector), group.price, group.place)
                        if found is None or here < best:
                            found, best = bucket, here
        return next(iter(found.values())) if found else None

    def _openings(self, number: int, slots: int) -> list[Opening]:
        bit = 1 << number
        found: list[Opening] = []
        for group in self.able(number):
            if group.open & bit:
                for vector, bucket in group.buckets.items():
                    if group.bits[vector] & bit:
                        left = sum(vector) - slots
                        found.append(Opening(left, group.price, group.place, group, bucket))
        return found

    def with_room(self, number: int, kinds: tuple[SlotKind, ...]) -> Iterator[Host]:
        """Workers of this hardware on which one node fits now, the tightest first."""
        openings = self._openings(number, self.shapes.known[number].slots)
        for opening in sorted(openings, key=lambda opening: opening[:3]):
            if opening.group.kinds == kinds:
                yield from opening.bucket.values()

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
        holders = self._holders.get(want)
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

    # The index

    def _group_of(self, capacity: WorkerCapacity) -> Group:
        counts = Counter(capacity.slots.values())
        kinds = tuple(sorted(counts, key=lambda kind: (kind.accelerator, kind.memory_gb)))
        full: FreeSlots = tuple(counts[kind] for kind in kinds)
        labels = {
            name: value for name, value in capacity.labels.items() if name in self._label_names
        }
        key = (kinds, full, tuple(sorted(labels.items())), capacity.provider, capacity.price)
        group = self._groups.get(key)
        if group is None:
            self._places += 1
            group = Group(key, self._places, kinds, full, labels, capacity.provider, capacity.price)
            for shape in self.shapes.known:
                group.learn(shape)
            self._groups[key] = group
        return group

    def _enter(self, host: Host) -> None:
        self._hosts[host.id] = host
        host.group.size += 1
        self.rate += host.capacity.price * len(host.capacity.slots)
        for content in host.capacity.holds:
            self._holders[content][host.id] = host
        self._in(host)
        self._slots_for.clear()
        if host.group.size == 1:
            self._forget()

    def _leave(self, host: Host) -> None:
        """Undo ``_enter``, except that the worker stays known."""
        if not host.takes_jobs:
            return
        self._out(host)
        host.group.size -= 1
        self.rate -= host.capacity.price * len(host.capacity.slots)
        for content in host.capacity.holds:
            self._holders[content].pop(host.id, None)
            if not self._holders[content]:
                del self._holders[content]
        if not host.group.size:
            del self._groups[host.group.key]
            self._open_groups.pop(host.group.key, None)
        self._forget()

    def _in(self, host: Host) -> None:
        if host.takes_jobs and host.kept_for is None:
            before = host.group.open
            host.group.insert(host, self.shapes.known)
            self._note(host.group, before)

    def _out(self, host: Host) -> None:
        if host.takes_jobs and host.kept_for is None:
            before = host.group.open
            host.group.remove(host)
            self._note(host.group, before)

    def _note(self, group: Group, before: int) -> None:
        """What fits in a group may have changed."""
        if group.open == before:
            return
        if self._open is not None:
            self._open = None if before & ~group.open else self._open | group.open
        if group.open:
            self._open_groups[group.key] = group
        else:
            self._open_groups.pop(group.key, None)

    def _regroup(self) -> None:
        """Sort all workers anew: a label that nobody asked for until now tells them apart."""
        hosts = list(self._hosts.values())
        self._groups, self._open_groups = {}, {}
        for host in hosts:
            if host.takes_jobs:
                host.group = self._group_of(host.capacity)
                host.group.size += 1
                self._in(host)

    def _take_in(self, number: int, shape: Shape) -> None:
        """A new shape changes what is known of the others in nothing but its own bit."""
        if self._satisfiable is not None and self._could_ever(number, shape):
            self._satisfiable |= 1 << number
        for other in numbers(self.rivals(number)):
            if other in self._rivals:
                self._rivals[other] |= 1 << number

    def _forget(self) -> None:
        self._open = self._satisfiable = None
        self._rivals.clear()
        self._able.clear()
        self._alike.clear()
        self._slots_for.clear()

    def _could_ever(self, number: int, shape: Shape) -> bool:
        alike: Counter[tuple[SlotKind, ...]] = Counter()
        for group in self.able(number):
            alike[group.kinds] += group.size
        return any(count >= shape.nodes for count in alike.values())
