"""Who yields to an urgent job that the limits of its own tenants hold up, and where it will run.

Only jobs below the node whose limit is in the way make room under it. Where there is no room on
workers either, who has to yield there counts under the limits as well.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.hosts import Host
from st_controller.domain.scheduling.model import Level, PendingJob
from st_controller.domain.scheduling.nodes import Node
from st_controller.domain.scheduling.preemption import Clearing, Clearings
from st_controller.domain.scheduling.running import Running, below

MOST_COMPARED = 512
"""Jobs below one limit among which those are sought that lose the least, unless more are needed."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where an urgent job will run, and who makes room for it."""

    hosts: tuple[Host, ...]
    victims: tuple[str, ...]
    awaited: tuple[str, ...] = ()
    """Jobs that stop, or are to, and take what the limits lack."""
    outranked: tuple[str, ...] = ()
    """Jobs of lower levels for which these workers are kept."""


@dataclass(frozen=True, slots=True)
class Others:
    """For whom workers are kept."""

    outranked: frozenset[str]
    """Jobs of lower levels, which give them up where there are no others."""
    needed: Mapping[Host, int]
    """Workers that are being cleared, and how many slots those need for whom they are."""


@dataclass(frozen=True, slots=True)
class Lack:
    """How many jobs and slots have to go below one node before its limits let a job start."""

    node: Node
    jobs: int
    slots: int
    """Both beside those that stop already, and what is kept there for others."""
    is_in_the_way: bool
    """Whether its limits let the job not start while nobody has ended."""
    stopping: tuple[str, ...]
    may_yield: tuple[Running, ...]

    def is_met(self, victims: Iterable[Running]) -> bool:
        """Whether it is enough that these yield."""
        here = [each.slots for each in victims if self.node in each.leaf.ancestry]
        return len(here) >= self.jobs and sum(here) >= self.slots


@dataclass(frozen=True, slots=True)
class _Below:
    """The running jobs of one node: who stops, what that frees, and who would yield."""

    stopping: tuple[str, ...]
    slots: int
    may_yield: tuple[Running, ...]


_Option = tuple[tuple[Host, ...], list[Running]]
"""Workers, and all who yield."""


class Yielding:
    """Chooses whoever loses the least work, and nobody who need not yield."""

    def __init__(self, fleet: Fleet, running: Mapping[str, Running], clearings: Clearings) -> None:
        self._fleet, self._running, self._clearings = fleet, running, clearings
        self._below: dict[tuple[Node, Level, int, int], _Below] = {}

    def begin(self) -> None:
        """Running jobs may be others than before."""
        self._below.clear()

    def lacking(
        self, job: PendingJob, number: int, level: int, limited: Sequence[Node]
    ) -> list[Lack] | None:
        """What a job lacks under each of these nodes; none: all who would yield are too few."""
        slots = self._fleet.shapes.known[number].total
        found = []
        for node in limited:
            share = node.share
            if share.max_jobs == 0 or (share.max_slots is not None and share.max_slots < slots):
                return None
            lack = self._lack(node, job.level, level, slots)
            if not lack.is_met(lack.may_yield):
                return None
            found.append(lack)
        return found

    def _lack(self, node: Node, asked: Level, level: int, slots: int) -> Lack:
        share = node.share
        kept = [each.job.shape.total for each in node.kept if each.level >= level]
        jobs = slots_over = 0
        if share.max_jobs is not None:
            jobs = node.running_jobs + len(kept) + 1 - share.max_jobs
        if share.max_slots is not None:
            slots_over = node.running_slots + sum(kept) + slots - share.max_slots
        here = self._those_below(node, asked, max(MOST_COMPARED, jobs), slots_over)
        return Lack(
            node,
            jobs - len(here.stopping),
            slots_over - here.slots,
            jobs > 0 or slots_over > 0,
            here.stopping,
            here.may_yield,
        )

    def _those_below(self, node: Node, asked: Level, most: int, slots: int) -> _Below:
        """Who stops below a node, and who would yield: so many, or as many as free the slots."""
        found = self._below.get((node, asked, most, slots))
        if found is None:
            stopping: list[Running] = []
            able: list[Running] = []
            freed = 0
            for each in below(node):
                if each.stopping:
                    stopping.append(each)
                    continue
                is_wanted = len(able) < most or freed < slots
                if is_wanted and self._clearings.may_yield(each, asked):
                    able.append(each)
                    freed += each.slots
            found = self._below[node, asked, most, slots] = _Below(
                tuple(each.job.id for each in stopping),
                sum(each.slots for each in stopping),
                tuple(able),
            )
        return found

    def room(
        self, job: PendingJob, number: int, lacking: Sequence[Lack], others: Others, now: float
    ) -> Room | None:
        """Where a job will run and who yields for it; none: no workers could be cleared."""
        in_the_way = [lack for lack in lacking if lack.is_in_the_way]
        options = self._options(job, number, in_the_way, others, now)
        if not options:
            return None
        hosts, victims = min(options, key=lambda option: _cost(option[1], now))
        nodes = {lack.node for lack in in_the_way}
        awaited = [each for lack in in_the_way for each in lack.stopping]
        awaited += [each.job.id for each in victims if not nodes.isdisjoint(each.leaf.ancestry)]
        return Room(
            hosts,
            tuple(each.job.id for each in victims),
            tuple(dict.fromkeys(awaited)),
            tuple({host.kept_for for host in hosts if host.kept_for in others.outranked}),
        )

    def _options(
        self, job: PendingJob, number: int, lacking: Sequence[Lack], others: Others, now: float
    ) -> list[_Option]:
        """Workers and who yields: where it fits now; where nobody, and who is outranked, waits."""
        free = self._free(job, number)
        if free is not None:
            return [(free, _under_limits(lacking, [], now))]
        clearings = self._clearings

        def cleared(gone: AbstractSet[str]) -> Iterator[list[Clearing] | None]:
            yield clearings.cheapest(job, number, now, (None,), gone)
            yield clearings.beside(job, number, now, others.needed, gone)
            yield clearings.cheapest(job, number, now, {None, *others.outranked}, gone)

        first = _under_limits(lacking, [], now)
        found: list[_Option] = []
        for gone in ({each.job.id for each in first}, set[str]()):
            there = next((each for each in cleared(gone) if each is not None), None)
            if there is not None:
                chosen = first if gone else _under_limits(lacking, self._victims(there), now)
                found.append(self._all(number, lacking, there, chosen, others, now))
        return found

    def _free(self, job: PendingJob, number: int) -> tuple[Host, ...] | None:
        """Workers on which it fits now."""
        openings = self._fleet.openings
        grants = openings.place(number, job.wants) if openings.mask >> number & 1 else None
        hosts = [self._fleet.get(grant.worker) for grant in grants or ()]
        return tuple(host for host in hosts if host is not None) or None

    def _all(
        self,
        number: int,
        lacking: Sequence[Lack],
        cleared: Sequence[Clearing],
        under_limits: Sequence[Running],
        others: Others,
        now: float,
    ) -> _Option:
        """All who yield, on the workers and under the limits, but nobody whom neither needs."""
        slots = self._fleet.shapes.known[number].slots
        hosts = tuple(clearing.host for clearing in cleared)
        needed = {
            host: slots + (others.needed.get(host, 0) if host.kept_for else 0) for host in hosts
        }

        def is_enough(left: Sequence[Running]) -> bool:
            gone = {each.job.id for each in left}
            return _are_met(lacking, left) and all(
                self._clearings.room(host, number, gone) >= slots for host, slots in needed.items()
            )

        victims = {each.job.id: each for each in (*self._victims(cleared), *under_limits)}
        return hosts, _needed(victims.values(), is_enough, now)

    def _victims(self, cleared: Iterable[Clearing]) -> list[Running]:
        ids = dict.fromkeys(each.job_id for clearing in cleared for each in clearing.victims)
        return [self._running[victim] for victim in ids]


def _under_limits(
    lacking: Sequence[Lack], yield_anyway: Sequence[Running], now: float
) -> list[Running]:
    """Who yields under the limits besides those; who does below the innermost counts for all."""
    known = {each.job.id for each in yield_anyway}
    chosen: list[Running] = []
    for lack in lacking:
        others = [each for each in lack.may_yield if each.job.id not in known]
        others.sort(key=lambda each: _loss(each, now))
        for each in others:
            if lack.is_met([*yield_anyway, *chosen]):
                break
            chosen.append(each)
            known.add(each.job.id)
    return _needed(chosen, lambda left: _are_met(lacking, [*yield_anyway, *left]), now)


def _needed(
    victims: Iterable[Running], is_enough: Callable[[Sequence[Running]], bool], now: float
) -> list[Running]:
    """Those without whom it would not be enough; who loses most is spared first."""
    left = sorted(victims, key=lambda each: _loss(each, now))
    for each in reversed(left[:]):
        spared = [other for other in left if other is not each]
        if is_enough(spared):
            left = spared
    return left


def _are_met(lacking: Sequence[Lack], victims: Sequence[Running]) -> bool:
    return all(lack.is_met(victims) for lack in lacking)


def _loss(running: Running, now: float) -> tuple[float, int, str]:
    return running.lost(now), running.slots, running.job.id


def _cost(victims: Sequence[Running], now: float) -> tuple[float, int]:
    return sum(each.lost(now) for each in victims), len(victims)
