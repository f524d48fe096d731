"""One worker as the scheduler keeps it, and the groups of workers that look alike to all shapes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from st_controller.domain.scheduling.model import Shape, SlotKind, WorkerCapacity
from st_controller.domain.scheduling.placement import kind_suits, labels_match, name_matches

FreeSlots = tuple[int, ...]
"""How many slots of each kind of a worker are free."""


class Hold(NamedTuple):
    """What one job has of a worker."""

    until: float
    """When the job is expected to end."""
    slots: tuple[int, ...]
    """Also those that the worker does not offer now, and may offer again while the job runs."""
    kinds: FreeSlots
    """How many of the slots that it offers are of each kind."""


@dataclass(slots=True, eq=False)
class Host:
    """A worker with what it runs."""

    id: str
    capacity: WorkerCapacity
    group: "Group"
    kind_of: dict[int, int]
    """Slot -> place of its kind in the group's kinds."""
    free: list[list[int]]
    """Free slots by kind, in rising order."""
    vector: FreeSlots
    """Lengths of ``free``."""
    running: dict[str, Hold] = field(default_factory=dict)
    takes_jobs: bool = True
    kept_for: str | None = None
    """Job for which it is reserved."""
    next_for: list[str] = field(default_factory=list)
    """Jobs for which others yield here as well, and for which it is reserved after that one."""
    frees: dict[int, float] = field(default_factory=dict)
    """For shapes that were asked about since anything changed here: when one node fits."""

    @classmethod
    def of(cls, capacity: WorkerCapacity, group: "Group") -> "Host":
        """A worker of ``group`` that runs nothing."""
        kind_of = {index: group.kinds.index(kind) for index, kind in capacity.slots.items()}
        free: list[list[int]] = [[] for _ in group.kinds]
        for index in sorted(kind_of):
            free[kind_of[index]].append(index)
        return cls(capacity.id, capacity, group, kind_of, free, tuple(map(len, free)))

    @property
    def keepers(self) -> list[str]:
        """All jobs for which it is reserved, the first before those after it."""
        return [self.kept_for, *self.next_for] if self.kept_for is not None else []

    def choose(self, number: int, count: int) -> tuple[int, ...]:
        """Free slots for one node of a shape that fits, those with the least memory first."""
        chosen: list[int] = []
        for kind in self.group.fitting[number] or ():
            chosen += self.free[kind][: count - len(chosen)]
        return tuple(chosen)

    def occupy(self, job_id: str, slots: Iterable[int], until: float) -> None:
        """Give slots to a job; those that the worker does not have any more count for nothing."""
        kinds = [0] * len(self.free)
        taken = tuple(slots)
        for index in taken:
            kind = self.kind_of.get(index)
            if kind is None:
                continue
            kinds[kind] += 1
            if index in self.free[kind]:
                self.free[kind].remove(index)
        self.running[job_id] = Hold(until, taken, tuple(kinds))
        self.vector = tuple(map(len, self.free))
        self.frees.clear()

    def release(self, job_id: str) -> None:
        """Take back what a job has."""
        hold = self.running.pop(job_id)
        for index in hold.slots:
            if index not in self.kind_of:
                continue
            free = self.free[self.kind_of[index]]
            free.append(index)
            free.sort()
        self.vector = tuple(map(len, self.free))
        self.frees.clear()

    def fits(self, number: int, shapes: Sequence[Shape]) -> bool:
        """Whether one node of the shape fits now."""
        return bool(self.group.fits(self.vector, shapes) >> number & 1)

    def free_at(self, number: int, slots: int) -> float:
        """When one node of the shape is, or was, to fit if nothing else is placed here."""
        found = self.frees.get(number)
        if found is None:
            found = self.frees[number] = self._frees_at(number, slots)
        return found

    def _frees_at(self, number: int, slots: int) -> float:
        kinds = self.group.fitting[number] or ()
        lacking = slots - sum([self.vector[kind] for kind in kinds])
        if lacking <= 0:
            return float("-inf")
        for hold in sorted(self.running.values()):
            for kind in kinds:
                lacking -= hold.kinds[kind]
            if lacking <= 0:
                return hold.until
        return float("inf")


@dataclass(slots=True, eq=False)
class Group:
    """Workers that differ in nothing that any shape asks for.

    Those with the same free slots lie in one bucket, so that what fits is decided per bucket.
    Workers that are reserved, or take no jobs, lie in none.
    """

    key: object
    """What its workers have in common; unlike that of any other group."""
    place: int
    """Keeps the order of groups stable where all else is equal."""
    kinds: tuple[SlotKind, ...]
    full: FreeSlots
    """Slots by kind when nothing runs."""
    labels: dict[str, str]
    provider: str
    price: float
    content_room_gb: float = float("inf")
    """Room for datasets of which any shape asks so much; all of its workers have as much."""
    fitting: list[tuple[int, ...] | None] = field(default_factory=list)
    """For each shape the kinds of slots that it may use, smallest memory first; none: not here."""
    accelerators: list[tuple[str, ...]] = field(default_factory=list)
    """The names of these; workers of which they are the same make a gang."""
    able: int = 0
    """The shapes that may use any slot of it."""
    buckets: dict[FreeSlots, dict[str, Host]] = field(default_factory=dict)
    bits: dict[FreeSlots, int] = field(default_factory=dict)
    """The shapes of which one node fits into these free slots."""
    open: int = 0
    """The shapes of which one node fits in some bucket."""
    free: int = 0
    """Free slots of all workers in the buckets."""
    size: int = 0
    """Workers that take jobs, the reserved ones included."""

    def learn(self, shape: Shape) -> None:
        """Take the next shape into account."""
        number = len(self.fitting)
        kinds = self._kinds_for(shape)
        self.fitting.append(kinds)
        names = {self.kinds[place].accelerator for place in kinds or ()}
        self.accelerators.append(tuple(sorted(names)))
        if kinds:
            self.able |= 1 << number
            for vector in self.bits:
                if sum(vector[kind] for kind in kinds) >= shape.slots:
                    self.bits[vector] |= 1 << number
            self._look_again()

    def fits(self, vector: FreeSlots, shapes: Sequence[Shape]) -> int:
        """The shapes of which one node fits into ``vector``."""
        found = self.bits.get(vector)
        if found is None:
            found = 0
            for number, kinds in enumerate(self.fitting):
                if kinds and sum(vector[kind] for kind in kinds) >= shapes[number].slots:
                    found |= 1 << number
            self.bits[vector] = found
        return found

    def insert(self, host: Host, shapes: Sequence[Shape]) -> None:
        """Put a worker into the bucket of its free slots."""
        bucket = self.buckets.get(host.vector)
        if bucket is None:
            bucket = self.buckets[host.vector] = {}
            self.open |= self.fits(host.vector, shapes)
        bucket[host.id] = host
        self.free += sum(host.vector)

    def remove(self, host: Host) -> None:
        """Take a worker out of the bucket that it was put into."""
        bucket = self.buckets[host.vector]
        del bucket[host.id]
        self.free -= sum(host.vector)
        if not bucket:
            del self.buckets[host.vector]
            self._look_again()

    def _look_again(self) -> None:
        found = 0
        for vector in self.buckets:
            found |= self.bits[vector]
        self.open = found

    def _kinds_for(self, shape: Shape) -> tuple[int, ...] | None:
        if shape.content_gb > self.content_room_gb:
            return None
        if not name_matches(shape.provider, self.provider):
            return None
        if not labels_match(dict(shape.labels), self.labels):
            return None
        found = [place for place, kind in enumerate(self.kinds) if kind_suits(kind, shape)]
        found.sort(key=lambda place: self.kinds[place].memory_gb)
        return tuple(found) or None
