"""How close the real scheduler comes to ideal shares over a month of simulated time.

python benchmarks/fairness.py [--quick] [--json PATH]

The scheduler core is driven on a virtual clock: 384 slots (36 workers of 8, 24 of 4), all of one
price; 3 organisations of weights 1, 2, 3, each of 2 teams, each of 3 users, of unequal
weights. Two users of each team always have jobs waiting (*backlogged*: as one of their jobs
starts, another is queued); the third offers half of what would be its share at the lowest.
Everybody's jobs are of normal priority. Patterns:

- steady: jobs of 1 to 4 slots and 10 minutes to 8 hours; the third users' jobs come one by one
- bursty: the same, but the third users' jobs come all at once, every other day
- flood: one user queues a month's work for all slots in the first second
- large: half of the users have 1-slot jobs of 20 minutes, the others 8-slot jobs of 4 hours
- gangs: half of the users have gangs of 2 to 4 workers of 4 slots each, the others small jobs

Time limits are 1.1 to 2 times of what a job takes; what is learned of its duration is wrong by
20 % on average, either way. What is measured, a pattern at a time:

- **Jain index**: (sum x)^2 / (n sum x^2) of x = usage / weight, within each set of siblings
  (organisations, the teams of one, the users of one) that were backlogged from beginning to end;
  the least of all sets. A team is backlogged while one of its users is.
- **deviation**: of the slot-seconds that a user had, from the ideal, relative to the ideal; the
  largest of all users. The ideal is a fluid: the slots that were in use at a time (so waste is
  measured once, by the utilisation) are divided, ten minutes at a time, by weighted water-filling
  from the root down among those that have work then, the backlogged having always more. A user's
  work is what its jobs take; in the fluid it may be spread over any number of slots.
- **utilisation**: slot-seconds in use / slot-seconds there are, over the time in which at least
  one job waited.
- **wait**: from the submission to the start of a job, for information.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from statistics import median, quantiles

from fair_shares import SIZES, SLOTS, children, divide, least_share, users, weights
from report import Goal, Result, report

from st_controller.domain.scheduling.model import (
    Level,
    PendingJob,
    Placement,
    Shape,
    Share,
    SlotKind,
    Tenant,
    WorkerCapacity,
    limit_step,
)
from st_controller.domain.scheduling.scheduler import Scheduler

DAY = 86_400.0
HOUR = 3600.0
PART = 600.0
"""Seconds of one step of the fluid."""
SLOT = SlotKind("NVIDIA A100", 80.0)
WAITING = 400
"""Jobs that a backlogged user keeps in the queue."""
FLOOD = "org0/team0/user0"
PATTERNS = ("steady", "bursty", "flood", "large", "gangs")
JAIN = "Jain index of usage/weight, backlogged"
DEVIATION = "largest deviation from the ideal"
UTILISATION = "utilisation while work waits"
METRICS: dict[str, tuple[str, Goal | None]] = {
    JAIN: ("", Goal("at least", 0.99)),
    DEVIATION: ("%", Goal("at most", 2.0)),
    UTILISATION: ("%", Goal("at least", 97.0)),
    "wait, p50": ("h", None),
    "wait, p99": ("h", None),
}

Work = tuple[Shape, float]
"""What a job asks for, and the seconds that it takes."""


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one run of each pattern, not three")
    parser.add_argument("--days", type=float, default=30.0, help="simulated days (30)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    runs = [
        (name, options.days, seed) for seed in range(1 if options.quick else 3) for name in PATTERNS
    ]
    with ProcessPoolExecutor() as pool:
        measured = dict(zip(runs, pool.map(measure, runs), strict=True))
    results = [
        result
        for name in PATTERNS
        for result in table(name, [found for run, found in measured.items() if run[0] == name])
    ]
    return 0 if report("fairness", results, options.json) else 1


def table(name: str, measured: list[dict[str, float]]) -> Iterator[Result]:
    """The medians of the runs of a pattern."""
    for metric, (unit, goal) in METRICS.items():
        runs = [found[metric] for found in measured]
        yield Result(f"{name}: {metric}", median(runs), unit, goal, runs)


def measure(run: tuple[str, float, int]) -> dict[str, float]:
    """All figures of one run, by metric."""
    replay = Replay(run[0], run[1] * DAY, run[2])
    replay.run()
    ideal = fluid(replay)
    waits = quantiles(replay.waits, n=100)
    return {
        JAIN: min(jain_indices(replay)),
        DEVIATION: 100 * max(abs(replay.used[user] / ideal[user] - 1) for user in ideal),
        UTILISATION: 100 * replay.busy / (SLOTS * replay.wanting),
        "wait, p50": waits[49] / HOUR,
        "wait, p99": waits[98] / HOUR,
    }


# The work


def works(pattern: str, tenant: Tenant) -> Callable[[Random], Work]:
    """What the jobs of a user are like."""
    is_even = int(tenant.user[-1]) % 2 == 0
    if pattern == "large":
        return _tiny if is_even else _whole_worker
    if pattern == "gangs" and is_even:
        return _gang
    return _usual


def _usual(random: Random) -> Work:
    seconds = min(8 * HOUR, max(HOUR / 6, random.expovariate(1 / (1.5 * HOUR))))
    return _shape(random, random.choice((1, 1, 2, 4)), 1, seconds), seconds


def _tiny(random: Random) -> Work:
    return _shape(random, 1, 1, HOUR / 3), HOUR / 3


def _whole_worker(random: Random) -> Work:
    return _shape(random, 8, 1, 4 * HOUR), 4 * HOUR


def _gang(random: Random) -> Work:
    seconds = random.uniform(HOUR / 2, 3 * HOUR)
    return _shape(random, 4, random.choice((2, 3, 4)), seconds), seconds


def _known(work: Work, _: Random) -> Work:
    return work


def _shape(random: Random, slots: int, nodes: int, seconds: float) -> Shape:
    return Shape(slots=slots, nodes=nodes, limit=limit_step(seconds * random.uniform(1.1, 2.0)))


# The replay


@dataclass(slots=True)
class Job:
    """A job on its way."""

    pending: PendingJob
    seconds: float
    started: float = 0.0


@dataclass
class Replay:
    """The scheduler under one pattern from 0 to ``until``."""

    pattern: str
    until: float
    seed: int = 0
    used: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Slot-seconds that a user had."""
    offered: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Of those that are not backlogged: moments and slot-seconds of what they submitted."""
    in_use: list[float] = field(default_factory=list)
    """Slots in use, on average, in each part of the time."""
    busy: float = 0.0
    """Slot-seconds in use while at least one job waited."""
    wanting: float = 0.0
    """Seconds in which at least one job waited."""
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(f"{self.pattern}{self.seed}")
        self.weights = weights()
        self.in_use = [0.0] * (int(self.until / PART) + 1)
        self.backlogged = {t.path for t in users() if t.user != "user2" or t.path == FLOOD}
        self._scheduler = Scheduler()
        self._now = 0.0
        self._slots = 0
        self._serial = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._jobs: dict[str, Job] = {}
        self._waiting: set[str] = set()

    def run(self) -> None:
        """Let all that time pass."""
        self._set_up()
        while self._events and self._events[0][0] <= self.until:
            moment, _, event = heappop(self._events)
            self._pass_to(moment)
            event()
            if not self._events or self._events[0][0] > self._now:
                self._decide()
        self._pass_to(self.until)
        for job in self._jobs.values():
            if job.pending.id not in self._waiting:
                self._charge(job)

    def _set_up(self) -> None:
        for path, weight in self.weights.items():
            self._scheduler.set_share(path, Share(weight))
        for number, size in enumerate(SIZES):
            slots = dict.fromkeys(range(size), SLOT)
            self._scheduler.put_worker(WorkerCapacity(f"worker{number}", slots), 0.0)
        for tenant in users():
            work = works(self.pattern, tenant)
            if tenant.path not in self.backlogged:
                self._come_and_go(tenant, work)
                continue
            for _ in range(self._how_many(tenant)):
                self._at(0.0, self._submission(tenant, work))
        self._scheduler.decide(0.0)

    def _how_many(self, tenant: Tenant) -> int:
        if self.pattern == "flood" and tenant.path == FLOOD:
            return int(SLOTS * self.until / (2 * 1.5 * HOUR))  # of 2 slots and 1.5 h on average
        return WAITING

    def _come_and_go(self, tenant: Tenant, work: Callable[[Random], Work]) -> None:
        """Half of the least share in all, one by one or every other day at once."""
        rate = least_share(tenant.path, self.weights) / 2
        at = submitted = 0.0
        while at < self.until:
            next_work = work(self.random)
            amount = next_work[0].total * next_work[1]
            submitted += amount
            self.offered[tenant.path].append((at, amount))
            self._at(at, self._submission(tenant, partial(_known, next_work)))
            due = submitted / rate
            at = due - due % (2 * DAY) if self.pattern == "bursty" else due

    def _submission(self, tenant: Tenant, work: Callable[[Random], Work]) -> Callable[[], None]:
        def submit() -> None:
            shape, seconds = work(self.random)
            name = f"job{next(self._serial):07}"
            expected = seconds * self.random.lognormvariate(0.0, 0.25)
            pending = PendingJob(
                name, tenant, Level.NORMAL, self._now, self._now, shape, expected=expected
            )
            self._jobs[name] = Job(pending, seconds)
            self._waiting.add(name)
            self._scheduler.enqueue(pending, self._now)

        return submit

    def _decide(self) -> None:
        while decisions := self._scheduler.decide(self._now):
            for decision in decisions:
                if not isinstance(decision, Placement):
                    raise TypeError(f"nobody may preempt here: {decision}")
                self._start(self._jobs[decision.job_id])

    def _start(self, job: Job) -> None:
        pending = job.pending
        job.started = self._now
        self.waits.append(self._now - pending.submitted)
        self._waiting.discard(pending.id)
        self._slots += pending.shape.total
        self._at(self._now + job.seconds, lambda: self._end(job))
        tenant = pending.tenant
        floods = self.pattern == "flood" and tenant.path == FLOOD
        if tenant.path in self.backlogged and not floods:
            self._submission(tenant, works(self.pattern, tenant))()

    def _end(self, job: Job) -> None:
        self._scheduler.finish(job.pending.id, self._now)
        self._slots -= job.pending.shape.total
        self._charge(job)
        del self._jobs[job.pending.id]

    def _charge(self, job: Job) -> None:
        held = self._now - job.started
        self.used[job.pending.tenant.path] += held * job.pending.shape.total

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heappush(self._events, (moment, next(self._serial), event))

    def _pass_to(self, moment: float) -> None:
        """Note what is in use until then."""
        if self._waiting:
            self.busy += self._slots * (moment - self._now)
            self.wanting += moment - self._now
        while self._now < moment:
            part = int(self._now / PART)
            end = min(moment, (part + 1) * PART)
            self.in_use[part] += self._slots * (end - self._now) / PART
            self._now = end


# What is ideal


def fluid(replay: Replay) -> dict[str, float]:
    """The slot-seconds that were every user's by weighted max-min over the tree."""
    below = children(replay.weights)
    work = {tenant.path: 0.0 for tenant in users()}
    coming = {user: iter(offers) for user, offers in replay.offered.items()}
    ahead = {user: next(offers, None) for user, offers in coming.items()}
    had = dict.fromkeys(work, 0.0)
    for part, slots in enumerate(replay.in_use):
        for user, offers in coming.items():
            while (offer := ahead[user]) is not None and offer[0] <= part * PART:
                work[user] += offer[1]
                ahead[user] = next(offers, None)
        for user in replay.backlogged:
            work[user] = float("inf")
        for user, amount in divide(slots * PART, work, below, replay.weights).items():
            had[user] += amount
            work[user] -= amount
    return had


def jain_indices(replay: Replay) -> Iterator[float]:
    """One for each set of at least two siblings that were backlogged all the time."""
    used: dict[str, float] = defaultdict(float)
    backlogged: set[str] = set()
    for tenant in users():
        for path in (tenant.org, f"{tenant.org}/{tenant.team}", tenant.path):
            used[path] += replay.used[tenant.path]
            if tenant.path in replay.backlogged:
                backlogged.add(path)
    for siblings in children(replay.weights).values():
        shares = [used[path] / replay.weights[path] for path in siblings if path in backlogged]
        if len(shares) > 1:
            yield sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


if __name__ == "__main__":
    sys.exit(main())
