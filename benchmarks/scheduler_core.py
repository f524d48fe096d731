"""How fast the scheduler decides, with a million queued jobs and with ten thousand.

python benchmarks/scheduler_core.py [--quick] [--json PATH]

10,000 workers of 1 to 8 slots (43,000 slots or so, seven kinds of accelerator, two providers,
three regions), 500 users in 100 teams in 10 organisations with unequal weights, 64 shapes of
requests (nine of them gangs of 2 to 8 nodes, asked for less often) with time limits from 30
minutes to 24 hours, all five priority classes. The jobs were submitted in the course of a week,
so that many have risen by waiting. The fleet is filled first. Then, step by step: one running
job, chosen at random, finishes, and the scheduler decides. A decision is one job placed on its
slots (a gang is one decision); the time of a step is that of ``finish`` and ``decide`` together,
whether nothing, one or several jobs are placed. For each job placed a new one is queued, so the
queue keeps its length; that is timed apart.

The virtual clock moves as if the scheduler were saturated, 10,000 ends a second: what it does
every so often (settling the decay of all usage, every 30 s) then weighs as it would at that
rate. A step that settles is timed apart, as are the steps at the pace of jobs that run 4 hours,
where such steps are more frequent among the few that there are.

Python's cyclic garbage collector runs as a controller that leads has it (``LongLived``): what was
loaded is frozen, what comes later is collected. The processor time of all steps is told beside: it
is what the same would take on a machine with nothing else to do.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from random import Random
from statistics import median, quantiles

import psutil
from report import Goal, Result, report

from st_controller.dispatch.long_lived import LongLived
from st_controller.domain.scheduling.model import (
    Decision,
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

MANY, FEW = 1_000_000, 10_000
WORKERS = 10_000
SATURATED = 1 / 10_000
"""Seconds between two ends at the rate that is asked of the scheduler."""
MEAN_RUN = 4 * 3600.0
"""Seconds that a job runs on average at the pace of a usual day."""
BACKLOG = 7 * 86_400.0
"""Seconds in which the queue has come together."""
KINDS = [
    SlotKind("cpu", 16.0),
    SlotKind("NVIDIA L4", 24.0),
    SlotKind("NVIDIA A10G", 24.0),
    SlotKind("NVIDIA A100", 40.0),
    SlotKind("NVIDIA A100", 80.0),
    SlotKind("NVIDIA H100", 80.0),
    SlotKind("NVIDIA H200", 141.0),
]
SIZES = {"cpu": (1, 2, 4, 8), "NVIDIA L4": (1, 2, 4), "NVIDIA A10G": (1, 4, 8)}
LIMITS = [limit_step(hours * 3600.0) for hours in (0.5, 1, 2, 4, 8, 12, 24)]
GOALS = {
    "decisions": Goal("at least", 10_000.0),
    "p99": Goal("at most", 1.0),
    "ratio": Goal("at most", 2.0),
    "memory": Goal("at most", 1024.0),
}


@dataclass(slots=True)
class Measured:
    """One run at one length of the queue."""

    load: float
    """Seconds in which the queue was filled."""
    memory: float
    """Bytes of resident memory a queued job takes, its own record included."""
    steps: list[float] = field(default_factory=list)
    """Seconds of each ``finish`` and ``decide``."""
    processor: float = 0.0
    """Seconds of processor time of all steps together."""
    placed: int = 0
    enqueued: list[float] = field(default_factory=list)
    settling: list[float] = field(default_factory=list)
    """Seconds of steps that settle all usage."""
    slow_steps: list[float] = field(default_factory=list)
    """Seconds of each step at the pace of a usual day."""

    @property
    def rate(self) -> float:
        """Decisions in a second."""
        return self.placed / sum(self.steps)

    @property
    def cost(self) -> float:
        """Seconds for one decision."""
        return sum(self.steps) / max(1, self.placed)


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two runs of each, and shorter ones")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    runs, steps = (2, 8_000) if options.quick else (5, 20_000)
    many = measure(MANY, steps, runs)
    few = measure(FEW, steps, runs)
    return 0 if report("scheduler_core", list(results(many, few)), options.json) else 1


def results(many: list[Measured], few: list[Measured]) -> Iterator[Result]:
    """The medians over the runs, with the spread beside them."""
    yield of(f"decisions, {MANY:,} queued", [run.rate for run in many], "1/s", GOALS["decisions"])
    yield of(f"decisions, {FEW:,} queued", [run.rate for run in few], "1/s", GOALS["decisions"])
    for name, measured in ((MANY, many), (FEW, few)):
        rates = [run.placed / run.processor for run in measured]
        yield of(f"decisions a second of processor time, {name:,} queued", rates, "1/s", None)
    yield of(
        f"cost of a decision, {MANY:,} over {FEW:,} queued",
        [a.cost / b.cost for a, b in zip(many, few, strict=True)],
        "",
        GOALS["ratio"],
    )
    for name, measured, goal in ((MANY, many, GOALS["p99"]), (FEW, few, GOALS["p99"])):
        yield of(f"finish and decide, p50, {name:,} queued", share(measured, 50), "ms", None)
        yield of(f"finish and decide, p99, {name:,} queued", share(measured, 99), "ms", goal)
        yield of(
            f"finish and decide, worst, {name:,} queued",
            [1e3 * max(run.steps) for run in measured],
            "ms",
            None,
        )
        yield of(
            f"enqueue, mean, {name:,} queued",
            [1e6 * sum(run.enqueued) / len(run.enqueued) for run in measured],
            "us",
            None,
        )
        yield of(
            f"a step that settles all usage, {name:,} queued",
            [1e3 * median(run.settling) for run in measured],
            "ms",
            None,
        )
        yield of(
            f"finish and decide, p99, {name:,} queued, jobs of 4 h",
            [1e3 * quantiles(run.slow_steps, n=100)[98] for run in measured],
            "ms",
            None,
        )
    yield of("memory a queued job", [many[0].memory], "B", GOALS["memory"])
    yield of(f"load {MANY:,} jobs", [many[0].load], "s", None)


def of(metric: str, runs: list[float], unit: str, goal: Goal | None) -> Result:
    """The median of the runs against a goal."""
    return Result(metric, median(runs), unit, goal, runs)


def share(measured: list[Measured], percent: int) -> list[float]:
    """A percentile of the steps of each run, in milliseconds."""
    return [1e3 * quantiles(run.steps, n=100)[percent - 1] for run in measured]


def measure(queued: int, steps: int, runs: int) -> list[Measured]:
    """Load a queue of this length once, and let it run for a while several times."""
    gc.collect()
    bench = Bench(Random(queued))
    before = psutil.Process().memory_info().rss
    begun = time.perf_counter()
    bench.load(queued)
    loaded = time.perf_counter() - begun
    gc.collect()
    memory = (psutil.Process().memory_info().rss - before) / queued
    bench.fill()
    long_lived = LongLived()
    long_lived.begin()
    found = []
    for _ in range(runs):
        measured = Measured(loaded, memory)
        bench.run(steps, measured)
        bench.run_slowly(steps // 4, measured)
        found.append(measured)
        long_lived.sweep()
    long_lived.end()
    return found


class Bench:
    """A scheduler with a fleet, and the jobs that come and go."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 0.0
        self._serial = 0
        self._scheduler = Scheduler()
        self._running: list[str] = []
        self._tenants = tenants()
        self._shapes = list(shapes(random))
        self._how_often = list(accumulate(0.3 if s.nodes > 1 else 1.0 for s in self._shapes))
        for path, given in weights(random):
            self._scheduler.set_share(path, given)
        for worker in workers(random):
            self._scheduler.put_worker(worker, self._now)

    def load(self, count: int) -> None:
        """Queue so many jobs that were submitted one after another."""
        between = BACKLOG / count
        for number in range(count):
            self._scheduler.enqueue(self._job(self._now + number * between), self._now)
        self._now += BACKLOG

    def fill(self) -> None:
        """Let the fleet be filled, and the queue be what it was before."""
        while placed := self._take(self._scheduler.decide(self._now, 1000)):
            for _ in range(placed):
                self._scheduler.enqueue(self._job(self._now), self._now)

    def run(self, steps: int, measured: Measured) -> None:
        """One job ends, others start, as many are queued; so many times."""
        for _ in range(steps):
            self._now += SATURATED
            begun = time.process_time()
            seconds, decisions = self._end_one()
            measured.processor += time.process_time() - begun
            measured.steps.append(seconds)
            measured.placed += self._replace(decisions, measured)

    def run_slowly(self, steps: int, measured: Measured) -> None:
        """The same at the pace of a usual day, and some steps that settle for certain."""
        for _ in range(steps):
            self._now += MEAN_RUN / len(self._running)
            seconds, decisions = self._end_one()
            measured.slow_steps.append(seconds)
            self._replace(decisions, measured)
        for _ in range(20):
            self._now += self._scheduler.policy.settle_interval
            seconds, decisions = self._end_one()
            measured.settling.append(seconds)
            self._replace(decisions, measured)

    def _end_one(self) -> tuple[float, Sequence[Decision]]:
        """The seconds of one end and what follows, and what that is."""
        scheduler, clock = self._scheduler, time.perf_counter
        at = self._random.randrange(len(self._running))
        self._running[at], self._running[-1] = self._running[-1], self._running[at]
        ends = self._running.pop()
        begun = clock()
        scheduler.finish(ends, self._now)
        decisions = scheduler.decide(self._now)
        return clock() - begun, decisions

    def _replace(self, decisions: Sequence[Decision], measured: Measured) -> int:
        """Queue as many jobs as were placed; how many."""
        placed, clock = self._take(decisions), time.perf_counter
        for job in [self._job(self._now) for _ in range(placed)]:
            begun = clock()
            self._scheduler.enqueue(job, self._now)
            measured.enqueued.append(clock() - begun)
        return placed

    def _take(self, decisions: Sequence[Decision]) -> int:
        """Note what was placed."""
        placed = 0
        for decision in decisions:
            if isinstance(decision, Placement):
                self._running.append(decision.job_id)
                placed += 1
        return placed

    def _job(self, submitted: float) -> PendingJob:
        self._serial += 1
        level = Level(self._random.choices(range(5), (20, 60, 15, 4, 1))[0])
        return PendingJob(
            f"job_{self._serial:012}",
            self._random.choice(self._tenants),
            level,
            submitted,
            submitted,
            self._random.choices(self._shapes, cum_weights=self._how_often)[0],
            may_preempt=False,
        )


def tenants() -> list[Tenant]:
    """10 organisations of 10 teams of 5 users."""
    return [
        Tenant(f"org{org}", f"team{team}", f"user{user}")
        for org in range(10)
        for team in range(10)
        for user in range(5)
    ]


def weights(random: Random) -> Iterator[tuple[str, Share]]:
    """Weights from 1 to 5; a tenth of the users may run 20 jobs at most."""
    for tenant in tenants():
        limit = 20 if random.random() < 0.1 else None
        yield tenant.path, Share(float(random.randint(1, 5)), max_jobs=limit)
    for org in range(10):
        yield f"org{org}", Share(float(random.randint(1, 5)))
        for team in range(10):
            yield f"org{org}/team{team}", Share(float(random.randint(1, 5)))


def workers(random: Random) -> Iterator[WorkerCapacity]:
    """A fleet as it grows over years."""
    for number in range(WORKERS):
        kind = random.choice(KINDS)
        size = random.choice(SIZES.get(kind.accelerator, (1, 2, 4, 8, 8)))
        region = random.choice(("eu-west", "eu-north", "us-east"))
        cloud = random.random() < 0.3
        price = 1.0 + KINDS.index(kind) + cloud
        yield WorkerCapacity(
            f"worker{number:05}",
            dict.fromkeys(range(size), kind),
            {"region": region},
            "cloud" if cloud else "static",
            price,
        )


def shapes(random: Random) -> Iterator[Shape]:
    """64 requests of many kinds, a seventh of them gangs."""
    for number in range(64):
        kind = random.choice(KINDS)
        gang = number % 7 == 6
        largest = max(SIZES.get(kind.accelerator, (8,)))
        yield Shape(
            slots=largest if gang else random.choice([s for s in (1, 1, 2, 4, 8) if s <= largest]),
            accelerator=random.choice((kind.accelerator, f"{kind.accelerator}|NVIDIA H*")),
            min_memory_gb=random.choice((0.0, kind.memory_gb)),
            nodes=random.choice((2, 4, 8)) if gang else 1,
            labels=(("region", "eu-*"),) if random.random() < 0.2 else (),
            provider="static" if random.random() < 0.1 else "*",
            limit=random.choice(LIMITS),
        )


if __name__ == "__main__":
    sys.exit(main())
