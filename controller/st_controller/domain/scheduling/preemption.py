"""Which running jobs yield to an urgent one: the least work is lost first."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.hosts import Host
from st_controller.domain.scheduling.model import Level, PendingJob, Policy, SlotKind
from st_controller.domain.scheduling.running import Running

MOST_COMPARED = 512
"""Workers among which the cheapest to clear is sought."""


@dataclass(frozen=True, slots=True)
class Clearing:
    """A worker that becomes free for one node when these jobs yield."""

    host: Host
    victims: tuple[str, ...]
    lost: float


class Clearings:
    """Looks for workers that can be cleared."""

    def __init__(self, policy: Policy, fleet: Fleet, running: Mapping[str, Running]) -> None:
        self._policy, self._fleet, self._running = policy, fleet, running

    def cheapest(
        self, job: PendingJob, number: int, now: float, kept_for: Container[str | None] = (None,)
    ) -> list[Clearing] | None:
        """One worker for each node of ``job``; none where its rank does not clear enough.

        ``kept_for``: workers that are kept for one of these jobs, or (none) for nobody, are looked
        at.
        """
        shape = self._fleet.shapes.known[number]
        best: list[Clearing] | None = None
        for hosts in self._candidates(number, kept_for):
            found = [
                clearing
                for host in hosts
                if (clearing := self._clear(host, job.level, number, shape.slots, now))
            ]
            found.sort(key=lambda clearing: (clearing.lost, len(clearing.victims)))
            chosen = found[: shape.nodes]
            if len(chosen) == shape.nodes and (best is None or _cost(chosen) < _cost(best)):
                best = chosen
        return best

    def _candidates(self, number: int, kept_for: Container[str | None]) -> Iterable[list[Host]]:
        alike: dict[tuple[SlotKind, ...], list[Host]] = defaultdict(list)
        for host in islice(self._able(number, kept_for), MOST_COMPARED):
            alike[host.group.kinds].append(host)
        return alike.values()

    def _able(self, number: int, kept_for: Container[str | None]) -> Iterator[Host]:
        shapes = self._fleet.shapes.known
        for host in self._fleet.hosts():
            able = host.takes_jobs and host.kept_for in kept_for
            if able and host.group.fits(host.group.full, shapes) >> number & 1:
                yield host

    def _clear(
        self, host: Host, level: Level, number: int, slots: int, now: float
    ) -> Clearing | None:
        """The victims on one worker, cheapest first, and none that is not needed."""
        kinds = host.group.fitting[number] or ()
        room = sum(host.vector[kind] for kind in kinds)
        victims: list[tuple[float, int, str]] = []
        for job_id, hold in host.running.items():
            running = self._running[job_id]
            freed = sum(hold.kinds[kind] for kind in kinds)
            if running.stopping:
                room += freed  # it was told to yield already, and nothing else waits for it
            elif freed and self._may_yield(running, level):
                victims.append((running.lost(now), freed, job_id))
        victims.sort()
        chosen: list[tuple[float, int, str]] = []
        for victim in victims:
            if room >= slots:
                break
            chosen.append(victim)
            room += victim[1]
        if room < slots:
            return None
        for victim in reversed(chosen[:]):
            if room - victim[1] >= slots:
                chosen.remove(victim)
                room -= victim[1]
        return Clearing(host, tuple(v[2] for v in chosen), sum(v[0] for v in chosen))

    def _may_yield(self, running: Running, level: Level) -> bool:
        job = running.job
        return (
            job.preemptible
            and max(running.rank, job.level) < level
            and job.preemptions < self._policy.max_preemptions
        )


def _cost(clearings: list[Clearing]) -> tuple[float, int]:
    """Work that is lost, then how many yield: who was told to already costs nothing more."""
    return sum(one.lost for one in clearings), sum(len(one.victims) for one in clearings)
