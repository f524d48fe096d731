"""Workers kept for the job at the head of the line, and what may run there in the meantime."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.hosts import FreeSlots, Host
from st_controller.domain.scheduling.model import Grant, Level, PendingJob

MOST_COMPARED = 16
"""Workers of equal accelerators of which the first to be free is sought; twice for gangs."""

MOST_RESERVED = 2
"""Reservations among jobs that compete for the same workers: the head of the line and the next.
Each keeps workers partly idle; as gangs gather what comes free, few are soon fulfilled."""


@dataclass(slots=True, eq=False)
class Reservation:
    """Workers that are kept for a job until it fits on all of them."""

    job: PendingJob
    shape: int
    level: int
    """At which the job came to the head of the line."""
    hosts: tuple[Host, ...]
    start: float
    """When it is expected to fit, by how long what runs there is expected to last."""
    is_preempting: bool = False
    awaited: tuple[str, ...] = ()
    """Jobs that stop, and without which the limits of its tenants let it start."""
    at_any_rate: bool = False
    """Whether it is for somebody passed by, and leaves the head of the line its own."""
    rate: float = 0.0
    """Price of its slots for one second, as it was promised."""
    beside: int = 0
    """The shapes that fit on its workers beside what is reserved there."""
    before: int = 0
    """The shapes that fit there and are over before they are needed."""
    until: float = float("-inf")
    """How long that is true, if no slots are taken or given back."""


class Reservations:
    """All reservations.

    Among jobs that compete for the same workers the first in the order of service has one, and
    those behind it while all together keep no more than a part of the slots, and are few: what is
    kept lies partly idle, but whoever wants much at once would otherwise be passed by for ever.
    """

    def __init__(self, fleet: Fleet, part: float) -> None:
        self._fleet = fleet
        self._part = part
        self._by_job: dict[str, Reservation] = {}
        self._backfill: tuple[float, int, int] | None = None
        self._count = Counter[tuple[int, int]]()
        """How many reservations there are of each shape at each level."""
        self.shapes = 0
        """The shapes of all reserved jobs."""
        self.lowest = Level.FIRST + 1
        """The lowest level at which any job got its reservation."""
        self.closed = 0
        """The shapes for which no more may be reserved."""

    def __iter__(self) -> Iterator[Reservation]:
        return iter(list(self._by_job.values()))

    def __len__(self) -> int:
        return len(self._by_job)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_job

    def find(self, job_id: str) -> Reservation | None:
        """The reservation of a job."""
        return self._by_job.get(job_id)

    def add(self, reservation: Reservation) -> None:
        """Keep the workers from now on."""
        self._by_job[reservation.job.id] = reservation
        self._note(reservation, 1)
        for host in reservation.hosts:
            if host.kept_for is None:
                self._fleet.reserve(host, reservation.job.id)
            else:
                host.next_for.append(reservation.job.id)

    def remove(self, reservation: Reservation) -> None:
        """Let everybody in again."""
        del self._by_job[reservation.job.id]
        self._note(reservation, -1)
        self.closed &= ~self._fleet.reach.rivals(reservation.shape)
        for host in reservation.hosts:
            self._let_go(host, reservation.job.id)

    def _let_go(self, host: Host, job_id: str) -> None:
        if host.kept_for != job_id:
            host.next_for.remove(job_id)
            self.changed(host.kept_for or "")
            return
        heir = host.next_for.pop(0) if host.next_for else None
        if self._fleet.get(host.id) is host:
            self._fleet.reserve(host, heir)
        else:
            host.kept_for = heir
        self.changed(heir or "")

    def cleared(self) -> dict[Host, int]:
        """Workers on which others yield to a job, and how many slots all need for which they do.

        Only those whose slots are all alike, so that any of them is as good to whoever needs some.
        """
        return {
            host: self._needed(host)
            for reservation in self._by_job.values()
            if reservation.is_preempting
            for host in reservation.hosts
            if len(host.vector) == 1
        }

    def _needed(self, host: Host) -> int:
        known = self._fleet.shapes.known
        return sum([known[self._by_job[one].shape].slots for one in host.keepers])

    def below(self, number: int, level: int) -> Reservation | None:
        """A reservation among the rivals of a shape that was made at a lower level."""
        if self.lowest >= level:
            return None
        rivals = self._fleet.reach.rivals(number)
        found: Reservation | None = None
        for kept in self._by_job.values():
            if kept.level < level and rivals >> kept.shape & 1:
                found, level = kept, kept.level
        return found

    def above(self, level: int, shapes: int) -> bool:
        """Whether there is one of a higher level for any of these shapes."""
        return bool(shapes & self.shapes) and any(
            kept.level > level and shapes >> kept.shape & 1 for kept in self._by_job.values()
        )

    def may_add(self, number: int, level: int = 0) -> bool:
        """Whether another job of this shape may have slots kept, if those below ``level`` go."""
        rivals, known = self._fleet.reach.rivals(number), self._fleet.shapes.known
        jobs = slots = 0
        for (shape, reserved_at), count in self._count.items():
            if reserved_at >= level and rivals >> shape & 1:
                jobs += count
                slots += count * known[shape].total
        return not jobs or (
            jobs < MOST_RESERVED and slots < self._part * self._fleet.reach.slots_for(number)
        )

    def _note(self, reservation: Reservation, sign: int) -> None:
        self._backfill = None
        if not reservation.at_any_rate:
            key = reservation.shape, reservation.level
            self._count[key] += sign
            if not self._count[key]:
                del self._count[key]
        kept = self._by_job.values()
        self.lowest = min((one.level for one in kept), default=Level.FIRST + 1)
        self.shapes = 0
        for one in kept:
            self.shapes |= 1 << one.shape

    def fitting(self, reservation: Reservation) -> int:
        """The shapes that its workers have room for now."""
        found = 0
        for host in reservation.hosts:
            found |= host.group.fits(host.vector, self._fleet.shapes.known)
        if len(reservation.hosts) == 1:
            found &= self._fleet.shapes.of_one_node
        return found

    def of_host(self, worker_id: str) -> Reservation | None:
        """The reservation that keeps a worker."""
        host = self._fleet.get(worker_id)
        return self._by_job.get(host.kept_for) if host and host.kept_for else None

    def grants(self, reservation: Reservation) -> tuple[Grant, ...] | None:
        """The slots of the reserved job, once it fits on all its workers."""
        shapes, number = self._fleet.shapes.known, reservation.shape
        if not all(host.fits(number, shapes) for host in reservation.hosts):
            return None
        count = shapes[number].slots
        return tuple(Grant(host.id, host.choose(number, count)) for host in reservation.hosts)

    def exchange(self, reservation: Reservation, now: float) -> list[Host]:
        """Keep workers that have room in place of those that have none yet; the latter."""
        shapes, number = self._fleet.shapes.known, reservation.shape
        slots = shapes[number].slots
        lacking = [host for host in reservation.hosts if not host.fits(number, shapes)]
        lacking.sort(key=lambda host: -max(now, host.free_at(number, slots)))
        with_room = self._fleet.openings.with_room(number, reservation.hosts[0])
        found = list(islice(with_room, len(lacking)))
        left = lacking[: len(found)]
        for host in left:
            self._fleet.reserve(host, None)
        for host in found:
            self._fleet.reserve(host, reservation.job.id)
        kept = [host for host in reservation.hosts if host not in left]
        reservation.hosts = (*kept, *found)
        frees = [host.free_at(number, slots) for host in reservation.hosts]
        reservation.start = max(now, *frees)
        self.changed(reservation.job.id)
        return left

    # Backfill

    def backfill(self, now: float) -> tuple[int, int]:
        """The shapes that fit on reserved workers: beside what is kept there, and before it.

        Those of the second kind are over, by their time limit, before the reserved job is
        expected to start.
        """
        if self._backfill is not None and now <= self._backfill[0]:
            return self._backfill[1:]
        beside = before = 0
        until = float("inf")
        for reservation in self._by_job.values():
            if now > reservation.until:
                self._look_at(reservation, now)
            beside |= reservation.beside
            before |= reservation.before
            until = min(until, reservation.until)
        self._backfill = (until, beside, before)
        return beside, before

    def changed(self, job_id: str) -> None:
        """Slots were taken or given back on a worker that is kept for a job."""
        reservation = self._by_job.get(job_id)
        if reservation is not None:
            reservation.until, self._backfill = float("-inf"), None

    def taken(self, hosts: Iterable[Host]) -> None:
        """A job began on these workers."""
        for host in hosts:
            for job_id in host.keepers:
                self.changed(job_id)

    def forget_room(self) -> None:
        """A shape is new, so it is in none of the masks."""
        for job_id in self._by_job:
            self.changed(job_id)

    def backfill_place(self, number: int, now: float) -> tuple[Grant, ...] | None:
        """Slots of a reserved worker for a job that is over before they are needed, or beside."""
        shape = self._fleet.shapes.known[number]
        for reservation in self._by_job.values():
            is_short = shape.limit <= self._gap(reservation, now)
            for host in _kept_first(reservation):
                vector = host.vector if is_short else self._beside(host)
                if host.group.fits(vector, self._fleet.shapes.known) >> number & 1:
                    return (Grant(host.id, host.choose(number, shape.slots)),)
        return None

    def _look_at(self, reservation: Reservation, now: float) -> None:
        shapes = self._fleet.shapes
        room = beside = 0
        for host in _kept_first(reservation):
            room |= host.group.fits(host.vector, shapes.known)
            left = self._beside(host)
            if any(left):
                beside |= host.group.fits(left, shapes.known)
        short, longest = shapes.no_longer(self._gap(reservation, now))
        reservation.beside = beside & shapes.of_one_node
        reservation.before = room & short & shapes.of_one_node & ~beside
        # Time takes shapes away and gives none, so where none is short enough it changes nothing.
        reservation.until = reservation.start - longest if reservation.before else float("inf")

    def _gap(self, reservation: Reservation, now: float) -> float:
        """Seconds for which others may use what is kept.

        None where jobs yield: most do so long before the grace is over, by which none ends.
        """
        return 0.0 if reservation.is_preempting else reservation.start - now

    def _beside(self, host: Host) -> FreeSlots:
        """Free slots of a worker of equal slots beyond those that the reserved jobs take."""
        if len(host.vector) > 1:
            return (0,) * len(host.vector)
        return (max(0, host.vector[0] - self._needed(host)),)

    # Where

    def earliest(self, number: int, now: float) -> tuple[tuple[Host, ...], float] | None:
        """The workers on which a job of this shape is expected to fit first, and when."""
        shape = self._fleet.shapes.known[number]
        best: tuple[tuple[Host, ...], float] | None = None
        for hosts in self._alike(number):
            if len(hosts) < shape.nodes:
                continue
            times = []
            for at, host in enumerate(hosts):
                free = host.frees.get(number)
                if free is None:
                    free = host.free_at(number, shape.slots)
                times.append((free, at) if free > now else (now, at))
            times.sort()
            del times[shape.nodes :]
            start = times[-1][0]
            if best is None or start < best[1]:
                best = tuple(hosts[at] for _, at in times), start
        return best

    def _alike(self, number: int) -> Iterable[list[Host]]:
        """Workers of equal accelerators that could run one node, the emptiest of them."""
        nodes = self._fleet.shapes.known[number].nodes
        most = MOST_COMPARED if nodes == 1 else max(2 * MOST_COMPARED, 4 * nodes)
        for groups in self._fleet.reach.by_accelerators(number):
            buckets = [
                (-sum(vector), group.place, bucket)
                for group in groups
                for vector, bucket in group.buckets.items()
            ]
            buckets.sort(key=itemgetter(0, 1))
            hosts: list[Host] = []
            for _, _, bucket in buckets:
                hosts += islice(bucket.values(), most - len(hosts))
                if len(hosts) >= most:
                    break
            yield hosts


def _kept_first(reservation: Reservation) -> Iterator[Host]:
    """The workers of a reservation but those that are kept for another before it."""
    return (host for host in reservation.hosts if host.kept_for == reservation.job.id)
