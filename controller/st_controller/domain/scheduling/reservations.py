"""Workers kept for the job at the head of the line, and what may run there in the meantime."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.hosts import Host
from st_controller.domain.scheduling.model import Grant, PendingJob, SlotKind

MOST_COMPARED = 16
"""Workers of one group of which the first to be free is sought."""


@dataclass(slots=True, eq=False)
class Reservation:
    """Workers that are kept for a job until it fits on all of them."""

    job: PendingJob
    shape: int
    level: int
    """At which the job came to the head of the line."""
    hosts: tuple[Host, ...]
    start: float
    """When it fits at the latest, by the time limits of what runs there."""
    is_preempting: bool = False


class Reservations:
    """All reservations; there is at most one among jobs that compete for the same workers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._by_job: dict[str, Reservation] = {}

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
        for host in reservation.hosts:
            self._fleet.reserve(host, reservation.job.id)

    def remove(self, reservation: Reservation) -> None:
        """Let everybody in again."""
        del self._by_job[reservation.job.id]
        for host in reservation.hosts:
            if self._fleet.get(host.id) is host:
                self._fleet.reserve(host, None)
            else:
                host.kept_for = None

    def among(self, rivals: int) -> Reservation | None:
        """The reservation of a job whose shape is among these."""
        for reservation in self._by_job.values():
            if rivals >> reservation.shape & 1:
                return reservation
        return None

    def of_host(self, worker_id: str) -> Reservation | None:
        """The reservation that keeps a worker."""
        host = self._fleet.get(worker_id)
        return self._by_job.get(host.kept_for) if host and host.kept_for else None

    def lowest_level(self) -> int | None:
        """The lowest level at which any job got its reservation."""
        return min((kept.level for kept in self._by_job.values()), default=None)

    def rivals(self) -> int:
        """The shapes that compete with those of reserved jobs."""
        found = 0
        for reservation in self._by_job.values():
            found |= self._fleet.rivals(reservation.shape)
        return found

    def grants(self, reservation: Reservation) -> tuple[Grant, ...] | None:
        """The slots of the reserved job, once it fits on all its workers."""
        shapes, number = self._fleet.shapes.known, reservation.shape
        if not all(host.fits(number, shapes) for host in reservation.hosts):
            return None
        count = shapes[number].slots
        return tuple(Grant(host.id, host.choose(number, count)) for host in reservation.hosts)

    # Backfill

    def backfill(self, now: float) -> int:
        """The shapes that fit on a reserved worker and end before its reservation begins."""
        found = 0
        shapes = self._fleet.shapes
        for reservation in self._by_job.values():
            short = shapes.no_longer(reservation.start - now)
            if short:
                for host in reservation.hosts:
                    found |= host.group.fits(host.vector, shapes.known) & short
        return found & shapes.of_one_node

    def backfill_place(self, number: int, now: float) -> tuple[Grant, ...] | None:
        """Slots of a reserved worker for a job that is over before they are needed."""
        shape = self._fleet.shapes.known[number]
        for reservation in self._by_job.values():
            if shape.limit <= reservation.start - now:
                for host in reservation.hosts:
                    if host.fits(number, self._fleet.shapes.known):
                        return (Grant(host.id, host.choose(number, shape.slots)),)
        return None

    # Where

    def earliest(self, number: int, now: float) -> tuple[tuple[Host, ...], float] | None:
        """The workers on which a job of this shape fits first, and when at the latest."""
        shape = self._fleet.shapes.known[number]
        best: tuple[tuple[Host, ...], float] | None = None
        for hosts in self._alike(number):
            times = sorted(
                ((host.free_at(number, shape.slots, now), at) for at, host in enumerate(hosts))
            )[: shape.nodes]
            if len(times) < shape.nodes:
                continue
            start = times[-1][0]
            if best is None or start < best[1]:
                best = tuple(hosts[at] for _, at in times), start
        return best

    def _alike(self, number: int) -> Iterable[list[Host]]:
        """Workers of equal hardware that could run one node, the emptiest of them."""
        shapes = self._fleet.shapes.known
        nodes = shapes[number].nodes
        by_hardware: dict[tuple[SlotKind, ...], list[Host]] = defaultdict(list)
        for group in self._fleet.groups():
            if not group.fits(group.full, shapes) >> number & 1:
                continue
            hosts = by_hardware[group.kinds]
            most = len(hosts) + max(MOST_COMPARED, 2 * nodes)
            for vector in sorted(group.buckets, key=sum, reverse=True):
                for host in group.buckets[vector].values():
                    if len(hosts) >= most:
                        break
                    hosts.append(host)
        return by_hardware.values()
