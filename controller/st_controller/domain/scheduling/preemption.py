"""Which running jobs yield to an urgent one: the least work is lost first."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.hosts import Host
from st_controller.domain.scheduling.model import Level, PendingJob, Policy
from st_controller.domain.scheduling.running import Running

MOST_COMPARED = 512
"""Workers among which the cheapest to clear is sought."""


class Victim(NamedTuple):
    """A running job that may yield; the least is the first to do so."""

    lost: float
    """Slot-seconds of work that would have to be done again."""
    freed: int
    """Slots on the worker in question that the other job may use."""
    job_id: str
    lost_here: float
    """What of the work is lost on that worker."""


@dataclass(frozen=True, slots=True)
class Clearing:
    """A worker that becomes free for one node when these jobs yield."""

    host: Host
    victims: tuple[Victim, ...]


class Clearings:
    """Looks for workers that can be cleared."""

    def __init__(
        self,
        policy: Policy,
        fleet: Fleet,
        running: Mapping[str, Running],
        just_started: AbstractSet[str],
    ) -> None:
        self._policy, self._fleet, self._running = policy, fleet, running
        self._just_started = just_started

    def cheapest(
        self,
        job: PendingJob,
        number: int,
        now: float,
        kept_for: Container[str | None] = (None,),
        gone: Container[str] = (),
    ) -> list[Clearing] | None:
        """One worker for each node of ``job``; none where its rank does not clear enough.

        ``kept_for``: workers that are kept for one of these jobs, or (none) for nobody, are looked
        at. ``gone``: jobs that are to yield in any case.
        """
        shape = self._fleet.shapes.known[number]
        best: list[Clearing] | None = None
        for hosts in self._candidates(number, kept_for):
            found = [
                clearing
                for host in hosts
                if (clearing := self._clear(host, job.level, number, shape.slots, now, gone))
            ]
            for key in (_cost_alone, _cost_as_part) if shape.nodes > 1 else (_cost_alone,):
                chosen = sorted(found, key=key)[: shape.nodes]
                if len(chosen) == shape.nodes and (best is None or _cost(chosen) < _cost(best)):
                    best = chosen
        return best

    def beside(
        self,
        job: PendingJob,
        number: int,
        now: float,
        needed: Mapping[Host, int],
        gone: Container[str] = (),
    ) -> list[Clearing] | None:
        """One of these workers, of which others need so many slots, that has room for a job, too.

        None for gangs, or where its rank does not clear enough.
        """
        shapes = self._fleet.shapes
        if not shapes.of_one_node >> number & 1:
            return None
        found = [
            clearing
            for host, slots in needed.items()
            if host.group.fits(host.group.full, shapes.known) >> number & 1
            if (
                clearing := self._clear(
                    host, job.level, number, slots + shapes.known[number].slots, now, gone
                )
            )
        ]
        return [min(found, key=_cost_alone)] if found else None

    def _candidates(self, number: int, kept_for: Container[str | None]) -> Iterable[list[Host]]:
        alike: dict[tuple[str, ...], list[Host]] = defaultdict(list)
        for host in islice(self._able(number, kept_for), MOST_COMPARED):
            alike[host.group.accelerators[number]].append(host)
        return alike.values()

    def _able(self, number: int, kept_for: Container[str | None]) -> Iterator[Host]:
        shapes = self._fleet.shapes.known
        for host in self._fleet.hosts():
            able = host.takes_jobs and host.kept_for in kept_for
            if able and host.group.fits(host.group.full, shapes) >> number & 1:
                yield host

    def _clear(
        self, host: Host, level: Level, number: int, slots: int, now: float, gone: Container[str]
    ) -> Clearing | None:
        """The victims on one worker with whom the least work is lost."""
        kinds = host.group.fitting[number] or ()
        room = sum(host.vector[kind] for kind in kinds)
        victims: list[Victim] = []
        for job_id, hold in host.running.items():
            running = self._running[job_id]
            freed = sum(hold.kinds[kind] for kind in kinds)
            if running.stopping or job_id in gone:
                room += freed  # it was told to yield already, and nothing else waits for it
            elif freed and self.may_yield(running, level):
                lost = running.lost(now)
                here = lost * len(hold.slots) / running.slots
                victims.append(Victim(lost, freed, job_id, here))
        chosen = least_lost(sorted(victims), slots - room)
        return None if chosen is None else Clearing(host, chosen)

    def room(self, host: Host, number: int, gone: Container[str]) -> int:
        """Slots of a worker that a shape may use once those who stop, and these, have yielded."""
        kinds = host.group.fitting[number] or ()
        return sum(host.vector[kind] for kind in kinds) + sum(
            sum(hold.kinds[kind] for kind in kinds)
            for job_id, hold in host.running.items()
            if job_id in gone or self._running[job_id].stopping
        )

    def may_yield(self, running: Running, level: Level) -> bool:
        """Whether a job is one that those who ask for this level preempt."""
        job = running.job
        return (
            job.preemptible
            and max(running.rank, job.level) < level
            and job.preemptions < self._policy.max_preemptions
            and job.id not in self._just_started
        )


def least_lost(victims: list[Victim], lacking: int) -> tuple[Victim, ...] | None:
    """Those who free so many slots at the least loss, then the fewest; none: all free too few.

    ``victims`` are sorted. By how many slots are freed, the best choice among those looked at.
    """
    if lacking > 0 and len({victim.freed for victim in victims}) == 1:
        enough = -(-lacking // victims[0].freed)
        return tuple(victims[:enough]) if len(victims) >= enough else None
    best: list[tuple[float, int, tuple[Victim, ...]] | None] = [(0.0, 0, ())]
    best += [None] * max(0, lacking)
    for victim in victims:
        for freed in range(lacking - 1, -1, -1):
            before = best[freed]
            if before is None:
                continue
            lost, count, chosen = before
            there = best[reached := min(lacking, freed + victim.freed)]
            if there is None or (lost + victim.lost, count + 1) < there[:2]:
                best[reached] = (lost + victim.lost, count + 1, (*chosen, victim))
    found = best[-1]
    return found[2] if found else None


def _cost_alone(clearing: Clearing) -> tuple[float, int]:
    return sum(one.lost for one in clearing.victims), len(clearing.victims)


def _cost_as_part(clearing: Clearing) -> tuple[float, int]:
    """What is lost there, where the other workers of the same jobs may be cleared as well."""
    return sum(one.lost_here for one in clearing.victims), len(clearing.victims)


def _cost(clearings: list[Clearing]) -> tuple[float, int]:
    """Work that is lost, then how many yield: who was told to already costs nothing more."""
    lost = {one.job_id: one.lost for clearing in clearings for one in clearing.victims}
    return sum(lost.values()), len(lost)
