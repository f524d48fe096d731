"""What the scheduler decides from given seeds, as digests: ``python -m simulation.decided``.

A change that is meant to be only quicker decides the same; ``test_same_decisions.py`` holds it to
that. Whoever changes the rules on purpose writes the digests anew with the command above.
"""

import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from math import exp
from pathlib import Path
from random import Random

from simulation.scenario import worker
from simulation.schedule import play
from st_controller.domain.scheduling.model import (
    Decision,
    Level,
    PendingJob,
    Placement,
    Policy,
    Shape,
    Share,
    Tenant,
    limit_step,
)
from st_controller.domain.scheduling.scheduler import Scheduler

DIGESTS = Path(__file__).with_name("decided.json")
SCHEDULES = range(3_000_000, 3_000_024)
CROWDS = range(3)
STEPS = 700
"""Ends of jobs in a crowd."""


def digests() -> dict[str, str]:
    """By name of a trace its digest."""
    found = {"exp": exponentials()}
    found |= {f"schedule {seed}": of_schedule(seed) for seed in SCHEDULES}
    return found | {f"crowd {seed}": of_crowd(seed) for seed in CROWDS}


def exponentials() -> str:
    """How the C library rounds what decay is made of: where that differs, so may decisions."""
    return _digest([exp(-number * 1.1e-5) for number in range(2_000)])


def of_schedule(seed: int) -> str:
    """All decisions of one random schedule, with faults and everything."""
    decided: list[tuple[float, Decision]] = []

    class Recorded(Scheduler):
        def decide(self, now: float, most: int | None = None) -> list[Decision]:
            found = super().decide(now, most)
            decided.extend((now, decision) for decision in found)
            return found

    play(seed, Recorded)
    return _digest(decided)


def of_crowd(seed: int) -> str:
    """All decisions where sixty users keep a fleet full for hours, and what each had used."""
    random = Random(seed)
    crowd = _Crowd(random)
    for _ in range(STEPS):
        crowd.step()
    return _digest([*crowd.decided, *sorted(crowd.scheduler.usage(crowd.now).items())])


class _Crowd:
    """A full fleet: whenever a job ends others start, and as many come."""

    def __init__(self, random: Random) -> None:
        self.now = 0.0
        self.decided: list[tuple[float, Decision]] = []
        self.scheduler = Scheduler(Policy(ageing_interval=1800.0))
        self._random, self._serial = random, 0
        self._running: list[str] = []
        self._workers = [worker(random, f"w{number}") for number in range(40)]
        self._tenants = [Tenant(f"o{n % 3}", f"t{n % 7}", f"u{n}") for n in range(60)]
        self._shapes = [self._shape() for _ in range(30)]
        for tenant in self._tenants:
            most = random.choice((None, None, None, 2))
            self.scheduler.set_share(tenant.path, Share(random.choice((1.0, 2.0, 5.0)), most))
        for capacity in self._workers:
            self.scheduler.put_worker(capacity, self.now)
        for _ in range(600):
            self._submit()
        self._decide()

    def step(self) -> None:
        """One job ends; now and then a worker leaves, or joins again."""
        self.now += self._random.expovariate(1 / 40.0)
        if self._random.random() < 0.02:
            capacity = self._random.choice(self._workers)
            self.scheduler.drop_worker(capacity.id, self.now)
            self._decide()
            self.scheduler.put_worker(capacity, self.now)
        elif self._running:
            ended = self._running.pop(self._random.randrange(len(self._running)))
            self.scheduler.finish(ended, self.now, charge=self._random.random() < 0.95)
        self._submit()
        self._decide()

    def _decide(self) -> None:
        found = self.scheduler.decide(self.now)
        self.decided += [(self.now, decision) for decision in found]
        for decision in found:
            if isinstance(decision, Placement):
                self._running.append(decision.job_id)
                self._submit()

    def _submit(self) -> None:
        self._serial += 1
        random = self._random
        since = self.now - random.choice((0.0, 0.0, 5_000.0))
        job = PendingJob(
            f"j{self._serial:05}",
            random.choice(self._tenants),
            Level(random.choices(range(5), (20, 60, 15, 4, 1))[0]),
            since,
            since,
            random.choice(self._shapes),
            wants=random.choice(((), (), ("cats", "base"))),
            may_preempt=random.random() < 0.5,
        )
        self.scheduler.enqueue(job, self.now)

    def _shape(self) -> Shape:
        random = self._random
        like = random.choice(self._workers)
        return Shape(
            slots=random.choice((1, 1, 2, len(like.slots))),
            accelerator=random.choice(("*", next(iter(like.slots.values())).accelerator)),
            nodes=random.choice((1, 1, 1, 1, 2, 3)),
            labels=(("region", "eu-*"),) if random.random() < 0.2 else (),
            limit=limit_step(random.uniform(600.0, 20_000.0)),
        )


def _digest(found: Sequence[object]) -> str:
    return sha256(repr(list(found)).encode()).hexdigest()[:16]


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n")
    sys.stdout.write(f"{DIGESTS.name} written\n")
