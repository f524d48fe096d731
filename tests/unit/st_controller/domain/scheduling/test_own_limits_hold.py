"""Random trees of limits: an urgent job starts once those have yielded who have to, and no more."""

from collections import Counter
from collections.abc import Container
from dataclasses import replace
from random import Random

import pytest
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level, PendingJob, Placement, Preemption

USERS = [f"o{n % 2}/t{n % 3}/u{n}" for n in range(7)]
LOWER = (Level.LOW, Level.NORMAL, Level.HIGH)


class _Crowd:
    """Lower jobs that keep a fleet, and the limits of their tenants, as full as may be."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.queue = Queue(ageing_interval=1e9, max_preemptions=10**6)
        self.jobs: dict[str, PendingJob] = {}
        self.stopping: dict[str, str] = {}
        """Who yields, and for whom."""
        self.limits = {
            path: {
                name: most
                for name in ("max_jobs", "max_slots")
                if (most := random.choice((0, 0, 1, 2, 3, 5, 9)))
            }
            for path in sorted({part for user in USERS for part in _paths(user)})
        }
        for path, limits in self.limits.items():
            self.queue.share(path, **limits)
        self.largest = max(
            sizes := [random.choice((1, 2, 4, 6)) for _ in range(random.randint(2, 5))]
        )
        self.whole = sum(size == self.largest for size in sizes)
        for number, size in enumerate(sizes):
            self.queue.worker(f"w{number}", slots=size)

    def submit(self, level: Level) -> str:
        """A job of a random user that could start if nothing else ran."""
        name, user = f"{level.name} {len(self.jobs)}", self.random.choice(USERS)
        most = min(self.limits[path].get("max_slots", 99) for path in _paths(user))
        slots = self.random.randint(1, min(self.largest, most))
        nodes = self.random.randint(1, max(1, min(self.whole, most // slots)))
        self.jobs[name] = self.queue.submit(
            name, user, level, slots=slots, nodes=nodes, limit=86_400.0
        )
        return name

    def decide(self) -> None:
        """Make true what is decided, and judge it."""
        while found := self.queue.scheduler.decide(self.queue.now, most=1):
            for decision in found:
                if isinstance(decision, Preemption):
                    self._preempted(decision)
                else:
                    self._placed(decision)

    def yielded(self, *names: str) -> None:
        """These have stored a checkpoint, and wait again."""
        for name in names:
            del self.stopping[name]
            self.queue.finish(name)
            job = self.jobs[name]
            again = replace(job, preemptions=job.preemptions + 1, waiting_since=self.queue.now)
            self.jobs[name] = again
            self.queue.scheduler.enqueue(again, self.queue.now)

    def _preempted(self, decision: Preemption) -> None:
        job = self.jobs[decision.job_id]
        reserved = [each.job for each in self.queue.scheduler.reservations]
        kept = [each for each in reserved if each.level >= job.level and each is not job]
        full = self._over(job, *kept, gone=self.stopping)
        for victim in decision.victims:
            assert victim in self.queue.scheduler.held
            assert victim not in self.stopping
            assert self.jobs[victim].level < job.level
            self.stopping[victim] = job.id
        assert self._over(job, *kept, gone=self.stopping) == set()
        own = self.queue.scheduler.reservations.find(job.id)
        assert own is not None
        hosts = {host.id for host in own.hosts}
        for victim in decision.victims:
            grants = self.queue.scheduler.held[victim].grants
            below = full.intersection(_paths(self.jobs[victim].tenant.path))
            assert below or hosts.intersection(grant.worker for grant in grants)

    def _placed(self, decision: Placement) -> None:
        job = self.jobs[decision.job_id]
        assert len({grant.worker for grant in decision.grants}) == job.shape.nodes
        assert {len(grant.slots) for grant in decision.grants} == {job.shape.slots}
        assert self._over() == set()

    def _over(self, *more: PendingJob, gone: Container[str] = ()) -> set[str]:
        """Paths of which a limit would be exceeded with more jobs, and without some."""
        held = self.queue.scheduler.held
        jobs: Counter[str] = Counter()
        slots: Counter[str] = Counter()
        for each in [*(self.jobs[name] for name in held if name not in gone), *more]:
            for path in _paths(each.tenant.path):
                jobs[path] += 1
                slots[path] += each.shape.total
        return {
            path
            for path, limits in self.limits.items()
            if jobs[path] > limits.get("max_jobs", 99) or slots[path] > limits.get("max_slots", 99)
        }


def _paths(user: str) -> list[str]:
    org, team, _ = user.split("/")
    return ["", org, f"{org}/{team}", user]


@pytest.mark.parametrize("seed", range(24))
def test_an_urgent_job_starts_once_those_have_yielded_who_are_told_to_at_once(seed: int) -> None:
    crowd = _Crowd(seed)
    for _ in range(25):
        crowd.submit(crowd.random.choice(LOWER))
    for _ in range(6):
        crowd.decide()
        urgent = crowd.submit(Level.URGENT)
        crowd.decide()
        told = list(crowd.stopping)
        for _ in range(3):
            crowd.submit(crowd.random.choice(LOWER))
            crowd.decide()
        assert list(crowd.stopping) == told  # nobody more, as long as those have not yielded
        crowd.yielded(*told)
        crowd.decide()
        assert urgent in crowd.queue.scheduler.held
        assert crowd.stopping == {}
        crowd.queue.finish(urgent, after=60.0)


@pytest.mark.parametrize("seed", range(12))
def test_all_urgent_jobs_start_though_lower_ones_come_for_ever(seed: int) -> None:
    crowd = _Crowd(seed)
    for _ in range(25):
        crowd.submit(crowd.random.choice(LOWER))
    crowd.decide()
    left = {crowd.submit(crowd.random.choice((Level.URGENT, Level.CRITICAL))) for _ in range(6)}
    for _ in range(40):
        crowd.submit(crowd.random.choice(LOWER))
        crowd.queue.pass_time(20.0)
        crowd.decide()
        if crowd.stopping and crowd.random.random() < 0.7:
            crowd.yielded(crowd.random.choice(list(crowd.stopping)))
        for name in [name for name in left if name in crowd.queue.scheduler.held]:
            left.discard(name)
            if name not in crowd.stopping:
                crowd.queue.finish(name)
    assert left == set()
