"""All workers, indexed so that a place for a job is found without looking at each of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from st_controller.domain.scheduling.hosts import Group, Host
from st_controller.domain.scheduling.model import Grant, Shape, SlotKind, WorkerCapacity
from st_controller.domain.scheduling.openings import Openings
from st_controller.domain.scheduling.reach import Reach
from st_controller.domain.scheduling.shapes import Shapes


class _Key(NamedTuple):
    """What tells workers apart to the shapes that there are."""

    counts: tuple[tuple[SlotKind, int], ...]
    labels: tuple[tuple[str, str], ...]
    provider: str
    price: float
    room: float


class Fleet:
    """The workers that there are, who comes and goes, and what each has free."""

    def __init__(self) -> None:
        self.shapes = Shapes()
        self._hosts: dict[str, Host] = {}
        self._groups: dict[object, Group] = {}
        self.reach = Reach(self.shapes, self._groups)
        """Where what could run if nothing else did."""
        self.openings = Openings(self.shapes, self.reach)
        """Where what fits now."""
        self._absent: dict[str, dict[str, tuple[tuple[int, ...], float]]] = defaultdict(dict)
        """What jobs hold of workers that take no jobs now: slots, and until when as expected."""
        self._label_names: set[str] = set()
        self._content_steps: set[float] = {0.0}
        """Room for datasets that any shape asks for: workers are told apart by nothing between."""
        self._places = 0
        self.rate = 0.0
        """Price of all slots that take jobs, for one second."""

    def get(self, worker_id: str) -> Host | None:
        """A worker that takes jobs or still runs some."""
        return self._hosts.get(worker_id)

    def hosts(self) -> Iterable[Host]:
        """Every worker that takes jobs or still runs some."""
        return self._hosts.values()

    def price(self, grants: Iterable[Grant]) -> float:
        """Price of one of these slots for one second, on average."""
        total, slots = 0.0, 0
        for grant in grants:
            host = self._hosts.get(grant.worker)
            total += host.capacity.price_of(grant.slots) if host else len(grant.slots)
            slots += len(grant.slots)
        return total / slots if slots else 1.0

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
            self.openings.note(group, before)
        if names <= self._label_names and shape.content_gb in self._content_steps:
            self.reach.learn(number)
        else:
            self._label_names |= names
            self._content_steps.add(shape.content_gb)
            self._regroup()
        return number

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

    def refresh(self, capacity: WorkerCapacity) -> bool:
        """Take over what changed about a worker, unless that concerns which jobs fit there.

        It does not where only what it has cached changed; gives whether it was so.
        """
        host = self._hosts.get(capacity.id)
        if host is None or not host.takes_jobs or host.capacity.slots != capacity.slots:
            return False
        if self._key_of(capacity) != host.group.key:
            return False
        self._let_go_of(host, host.capacity.holds - capacity.holds)
        for content in capacity.holds - host.capacity.holds:
            self.openings.holders[content][host.id] = host
        host.capacity = capacity
        return True

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
        before = self._out(host)
        host.occupy(job_id, grant.slots, until)
        self._in(host, before)
        return host

    def release(self, job_id: str, worker_id: str) -> Host | None:
        """Take slots back from a job; the worker, if it is still here."""
        host = self._hosts.get(worker_id)
        if host is None or job_id not in host.running:
            self._absent[worker_id].pop(job_id, None)
            if not self._absent[worker_id]:
                del self._absent[worker_id]
            return None
        before = self._out(host)
        host.release(job_id)
        self._in(host, before)
        if not host.takes_jobs and not host.running:
            del self._hosts[worker_id]
        return host

    def reserve(self, host: Host, job_id: str | None) -> None:
        """Keep a worker for a job, out of the ordinary search; none: let it in again."""
        before = self._out(host)
        host.kept_for = job_id
        self._in(host, before)

    # The index

    def _group_of(self, capacity: WorkerCapacity) -> Group:
        key = self._key_of(capacity)
        group = self._groups.get(key)
        if group is None:
            self._places += 1
            kinds, full = zip(*key.counts, strict=True) if key.counts else ((), ())
            group = Group(
                key, self._places, kinds, full, dict(key.labels), key.provider, key.price, key.room
            )
            for shape in self.shapes.known:
                group.learn(shape)
            self._groups[key] = group
        return group

    def _key_of(self, capacity: WorkerCapacity) -> _Key:
        counts = Counter(capacity.slots.values()).items()
        kinds = sorted(counts, key=lambda count: (count[0].accelerator, count[0].memory_gb))
        labels = sorted(item for item in capacity.labels.items() if item[0] in self._label_names)
        room = max(step for step in self._content_steps if step <= capacity.content_room_gb)
        return _Key(tuple(kinds), tuple(labels), capacity.provider, capacity.price, room)

    def _enter(self, host: Host) -> None:
        self._hosts[host.id] = host
        host.group.size += 1
        self.rate += host.capacity.price_of(host.capacity.slots)
        for content in host.capacity.holds:
            self.openings.holders[content][host.id] = host
        self._in(host, host.group.open)
        self.reach.grow()
        if host.group.size == 1:
            self.reach.forget()

    def _leave(self, host: Host) -> None:
        """Undo ``_enter``, except that the worker stays known."""
        if not host.takes_jobs:
            return
        group = host.group
        self.openings.note(group, self._out(host))
        group.size -= 1
        self.rate -= host.capacity.price_of(host.capacity.slots)
        self._let_go_of(host, host.capacity.holds)
        if not group.size:
            del self._groups[group.key]
        self.reach.forget()

    def _let_go_of(self, host: Host, contents: Iterable[str]) -> None:
        for content in contents:
            holders = self.openings.holders[content]
            holders.pop(host.id, None)
            if not holders:
                del self.openings.holders[content]

    def _out(self, host: Host) -> int:
        """Take a worker out of the search; what fitted in its group until now."""
        before = host.group.open
        if host.takes_jobs and host.kept_for is None:
            host.group.remove(host)
        return before

    def _in(self, host: Host, before: int) -> None:
        """Put a worker into the search, of whose group so much was known there."""
        group = host.group
        if host.takes_jobs and host.kept_for is None:
            group.insert(host, self.shapes.known)
        if group.open != before:
            self.openings.note(group, before)

    def _regroup(self) -> None:
        """Sort all workers anew: what nobody asked for until now tells them apart."""
        self._groups.clear()
        self.openings.clear()
        self.reach.forget()
        for host in self._hosts.values():
            if host.takes_jobs:
                host.group = self._group_of(host.capacity)
                host.group.size += 1
                self._in(host, host.group.open)
