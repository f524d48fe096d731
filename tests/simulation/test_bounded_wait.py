"""Whoever is within its share starts in bounded time, whatever others of higher class submit.

The low class needs four ageing intervals to reach the highest. From then on nobody who has had
more for their weight starts before it, and those who have had less only until they have had as
much: what they lack at that moment, and one job more each. Beyond that it waits for the longest run
of what holds the slots, and for a job of several slots for the longest time limit, because they are
kept for it. Proof: docs/decisions/0006-ageing-within-the-share.md.
"""

from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from st_controller.domain.scheduling.model import (
    Level,
    PendingJob,
    Placement,
    Policy,
    Shape,
    Share,
    SlotKind,
    Tenant,
    WorkerCapacity,
)
from st_controller.domain.scheduling.scheduler import Scheduler

CPU = SlotKind("cpu", 8.0)
LOW = Tenant("low", "team", "user")
LIMIT = 960.0
"""Time limit of every job, seconds; jobs of the flood last up to it."""


ORGS = ("org0", "org1", "org2")
"""Those of the flood."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How organisations compare at one moment."""

    keys: dict[str, float]
    """What those of whom something waits have had for their weight."""
    is_within_share: bool
    """Whether the one of the low job is."""

    def puts_first(self, org: str) -> bool:
        """Whether an organisation may be served before that of the low job."""
        low = self.keys[LOW.org], LOW.org
        return not self.is_within_share or (self.keys[org], org) < low


class Flood:
    """A fleet that others keep full with jobs of higher classes, for ever."""

    def __init__(self, random: Random, interval: float, workers: int, slots: int) -> None:
        self.random = random
        self.now = 0.0
        self.scheduler = Scheduler(Policy(ageing_interval=interval, half_life=86_400.0))
        self._ends: list[tuple[float, str]] = []
        self._jobs: dict[str, PendingJob] = {}
        self.started: dict[str, float] = {}
        self.before: dict[str, Standing | None] = {}
        """What each job that started came before."""
        self._tenants = [Tenant(f"org{n % 3}", "team", f"user{n}") for n in range(5)]
        for tenant in self._tenants:
            self.scheduler.set_share(tenant.org, Share(random.choice((1.0, 5.0, 50.0))))
        for number in range(workers):
            capacity = WorkerCapacity(f"w{number}", dict.fromkeys(range(slots), CPU))
            self.scheduler.put_worker(capacity, self.now)
        for _ in range(4 * workers * slots):
            self.more()
        self.decide()

    def more(self) -> None:
        """One more job of the flood; now and then of a user whom nobody has seen before."""
        number = len(self._jobs)
        newcomer = Tenant(f"org{number % 3}", "team", f"new{number}")
        tenant = newcomer if self.random.random() < 0.1 else self.random.choice(self._tenants)
        level = Level(self.random.randint(Level.NORMAL, Level.CRITICAL))
        self.submit(f"flood{number}", tenant, level, Shape(limit=LIMIT))

    def submit(self, name: str, tenant: Tenant, level: Level, shape: Shape) -> None:
        """Queue a job now."""
        job = PendingJob(name, tenant, level, self.now, self.now, shape, may_preempt=False)
        self._jobs[name] = job
        self.scheduler.enqueue(job, self.now)

    def decide(self) -> None:
        """Start what is to start; each start is followed by another submission."""
        self.scheduler.decide(self.now, most=0)  # settles
        standing = self.standing()
        while decisions := self.scheduler.decide(self.now, most=1):
            (decision,) = decisions
            assert isinstance(decision, Placement)
            self.started[decision.job_id] = self.now
            self.before[decision.job_id] = standing
            heappush(self._ends, (self.now + self.random.uniform(1.0, LIMIT), decision.job_id))
            self.more()
            standing = self.standing()

    def standing(self) -> Standing | None:
        """How the one who waits compares with the others; none: nobody of that name waits."""
        root, low = self.scheduler.tenants.root, self.scheduler.tenants.find(LOW.org)
        if low is None or not low.waiting:
            return None
        keys = {node.path: node.key for node in root.children.values() if node.key is not None}
        return Standing(keys, low.is_within_share)

    def lacking(self) -> float:
        """Slot-seconds that others lack, all together, to have had as much for their weight."""
        tenants = self.scheduler.tenants
        tenants.settle(self.now)
        low = tenants.node(LOW.org, self.now).claim
        found = {node.path: node.claim for node in tenants.root.children.values()}
        weights = {org: tenants.share(org).weight for org in ORGS}
        return sum(max(0.0, low * weights[org] - found.get(org, 0.0)) for org in ORGS)

    def most_ahead(self, slots: int) -> float:
        """Seconds that a job at the highest level waits at most, of which others are ahead."""
        policy = self.scheduler.policy
        not_counted_ahead = max(0.0, LIMIT - policy.horizon) * slots
        work = self.lacking() + len(ORGS) * (LIMIT + not_counted_ahead)
        return LIMIT + work / slots

    def wrongly_ahead(self, since: float) -> list[str]:
        """Jobs that started since a moment though their organisation had had more."""
        return [
            name
            for name, standing in self.before.items()
            if name != "low" and standing is not None and self.started[name] >= since
            if not standing.puts_first(self._jobs[name].tenant.org)
        ]

    def run_until(self, name: str, moment: float) -> None:
        """Let jobs end and others start until one has started, or a moment comes."""
        while name not in self.started and self._ends[0][0] <= moment:
            self.now, ended = heappop(self._ends)
            self.scheduler.finish(ended, self.now)
            self.decide()


@given(
    seed=st.integers(0, 2**32),
    interval=st.sampled_from((60.0, 600.0, 3600.0)),
    workers=st.integers(1, 3),
    slots=st.integers(1, 4),
    delay=st.floats(0.0, 20_000.0),
)
@example(seed=335, interval=60.0, workers=1, slots=1, delay=11_794.0)  # others lack two runs
@settings(max_examples=60, deadline=None)
def test_a_low_job_starts_under_an_endless_flood_of_higher_classes(
    seed: int, interval: float, workers: int, slots: int, delay: float
) -> None:
    flood = Flood(Random(seed), interval, workers, slots)
    flood.run_until("", delay)
    flood.submit("low", LOW, Level.LOW, Shape(limit=LIMIT))
    risen = flood.now + 4 * interval + 1.0

    flood.run_until("low", risen)
    flood.run_until("low", bound := risen + flood.most_ahead(workers * slots))

    assert flood.started.get("low", float("inf")) <= bound
    assert flood.wrongly_ahead(risen) == []


@given(
    seed=st.integers(0, 2**32),
    interval=st.sampled_from((60.0, 600.0)),
    nodes=st.integers(1, 2),
    slots=st.integers(2, 4),
)
@settings(max_examples=40, deadline=None)
def test_a_low_job_of_whole_workers_lands_under_a_flood_of_small_ones(
    seed: int, interval: float, nodes: int, slots: int
) -> None:
    flood = Flood(Random(seed), interval, 3, slots)
    flood.submit("low", LOW, Level.LOW, Shape(slots=slots, nodes=nodes, limit=LIMIT))

    flood.run_until("low", bound := 4 * interval + 2 * LIMIT + 1.0)

    assert flood.started.get("low", float("inf")) <= bound


@pytest.mark.parametrize("level", [Level.NORMAL, Level.HIGH])
def test_a_flood_by_the_same_user_is_no_way_around(level: Level) -> None:
    """Within a user the job that has waited to the highest class goes by submission."""
    scheduler = Scheduler(Policy(ageing_interval=100.0))
    scheduler.put_worker(WorkerCapacity("w", {0: CPU}), 0.0)
    scheduler.enqueue(PendingJob("low", LOW, Level.LOW, 0.0, 0.0, Shape()), 0.0)
    order: list[str] = []
    for number in range(60):
        now = number * 10.0
        for twin in range(2):
            name = f"{number}-{twin}"
            scheduler.enqueue(PendingJob(name, LOW, level, now, now, Shape()), now)
        for running in list(scheduler.running()):
            scheduler.finish(running, now)
        order += [decision.job_id for decision in scheduler.decide(now)]

    assert order.index("low") * 10.0 <= 4 * 100.0 + 10.0
