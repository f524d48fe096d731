"""Jobs that hold slots: what they take of the fleet, and whom they are charged to."""

from collections.abc import Iterator
from dataclasses import dataclass

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.hosts import Host
from st_controller.domain.scheduling.model import Grant, Level, PendingJob, Policy, RunningJob
from st_controller.domain.scheduling.nodes import Node
from st_controller.domain.scheduling.tenants import Tenants

LEARNING = 0.01
"""Weight of the newest job in what is learned of how long jobs run."""


@dataclass(slots=True, eq=False)
class Running:
    """A job that holds slots."""

    job: PendingJob
    grants: tuple[Grant, ...]
    leaf: Node
    slots: int
    rate: float
    started: float
    until: float
    """When it is expected to end."""
    checkpointed: float
    rank: int
    """The level that it had reached by waiting when it started; whom it outranked then does not
    preempt it now."""
    stopping: bool = False

    def lost(self, now: float) -> float:
        """Slot-seconds of work that would have to be done again."""
        return self.slots * max(0.0, now - self.checkpointed)


class RunningJobs:
    """Takes and gives back slots, and keeps the use of tenants in step."""

    def __init__(self, policy: Policy, fleet: Fleet, tenants: Tenants) -> None:
        self._policy, self._fleet, self._tenants = policy, fleet, tenants
        self.held: dict[str, Running] = {}
        """By job."""
        self._used_of_limit = 1.0
        """Part of their time limits that jobs used of late."""

    def start(
        self, job: PendingJob, leaf: Node, grants: tuple[Grant, ...], level: int, now: float
    ) -> list[Host]:
        """A job of a user begins; the workers that it runs on."""
        waited = max(0.0, now - job.waiting_since)
        risen = job.level + int(waited / self._policy.ageing_interval)
        rank = max(level, job.level, min(risen, Level.CRITICAL))
        return self._hold(job, leaf, grants, now, now, self._fleet.price(grants), rank, now)

    def adopt(self, begun: RunningJob, now: float) -> list[Host]:
        """A job that began earlier counts from now on; the workers that are known of it."""
        job = begun.job
        waited = max(0.0, begun.started - job.waiting_since)
        risen = job.level + int(waited / self._policy.ageing_interval)
        rank = max(job.level, min(risen, Level.CRITICAL))
        checkpointed = begun.checkpointed or begun.started
        leaf, started = self._tenants.user(job.tenant.path, now), begun.started
        hosts = self._hold(job, leaf, begun.grants, started, checkpointed, begun.price, rank, now)
        self.held[job.id].stopping = begun.stopping
        return hosts

    def end(
        self,
        running: Running,
        now: float,
        *,
        charge: bool,
        used: tuple[float, float] | None = None,
    ) -> list[Host]:
        """A job gives its slots back, without ``charge`` as if it had never had them.

        When that is noticed is of no account where it is known for how long they were ``used``.
        """
        if charge:
            begun, ended = used or (running.started, now)
            part = min(1.0, (ended - begun) / running.job.shape.limit)
            self._used_of_limit += LEARNING * (part - self._used_of_limit)
        del running.leaf.running[running.job.id]
        self._tenants.stop(running.leaf, running.slots, running.rate, now)
        if not charge or used is not None:
            due = used if charge else None
            self._tenants.correct(running.leaf, running.rate, running.started, now, due)
        found = [self._fleet.release(running.job.id, grant.worker) for grant in running.grants]
        return [host for host in found if host is not None]

    def ends(self, node: Node) -> list[tuple[float, int]]:
        """When jobs below a node are expected to end, and the slots of each, the soonest first."""
        if node.ends is None:
            node.ends = sorted((each.until, each.slots) for each in below(node))
        return node.ends

    def _hold(
        self,
        job: PendingJob,
        leaf: Node,
        grants: tuple[Grant, ...],
        started: float,
        checkpointed: float,
        price: float,
        rank: int,
        now: float,
    ) -> list[Host]:
        until, slots, hosts = started + self._lasts(job), 0, []
        for grant in grants:
            slots += len(grant.slots)
            host = self._fleet.occupy(job.id, grant, until)
            if host is not None:
                hosts.append(host)
        rate = slots * price
        self._tenants.start(leaf, slots, rate, now)
        running = Running(job, grants, leaf, slots, rate, started, until, checkpointed, rank)
        self.held[job.id] = leaf.running[job.id] = running
        return hosts

    def _lasts(self, job: PendingJob) -> float:
        """How long a job is expected to run: as declared or learned, or like others of late."""
        limit = job.shape.limit
        return min(limit, limit * self._used_of_limit if job.expected is None else job.expected)


def below(node: Node) -> Iterator[Running]:
    """The jobs of a node and of those below it that hold slots."""
    nodes = [node]
    while nodes:
        each = nodes.pop()
        if each.running_jobs:
            yield from each.running.values()
            nodes += each.children.values()
