"""Where all jobs want one slot, the scheduler serves in the very order of the reference."""

from random import Random

import pytest

from simulation.reference import Reference
from st_controller.domain.scheduling.model import (
    Level,
    PendingJob,
    Policy,
    Shape,
    Share,
    SlotKind,
    Tenant,
    WorkerCapacity,
)
from st_controller.domain.scheduling.scheduler import Scheduler

EXACT = Policy(settle_interval=0.0, ageing_interval=1e9, half_life=5_000.0, catch_up=1e9)
"""Usage is brought up to each moment, nobody rises by waiting, and no share lapses."""
KIND = SlotKind("cpu", 8.0)


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_service_is_that_of_the_reference(seed: int) -> None:
    random = Random(seed)
    pair = (Scheduler(EXACT), Reference(EXACT))
    jobs = _fill(random, pair)
    now, running, left = 0.0, [], dict.fromkeys({job.tenant for job in jobs.values()}, 8)
    while min(left.values()) > 0:  # whoever runs dry is not backlogged any more
        decided, expected = ([d.job_id for d in core.decide(now)] for core in pair)
        assert decided == expected
        running += decided
        for name in decided:
            left[jobs[name].tenant] -= 1
        now += random.uniform(0.1, 300.0)
        ended = running.pop(random.randrange(len(running)))
        for core in pair:
            core.finish(ended, now)


def _fill(random: Random, pair: tuple[Scheduler, Reference]) -> dict[str, PendingJob]:
    tenants = [
        Tenant(f"org{org}", f"team{team}", f"user{user}")
        for org in range(random.randint(1, 3))
        for team in range(random.randint(1, 3))
        for user in range(random.randint(1, 3))
    ]
    level = random.choice(list(Level)[:5])
    shares = {
        path: Share(random.uniform(0.5, 5.0), random.choice((None, None, 1, 3)))
        for tenant in tenants
        for path in (tenant.org, f"{tenant.org}/{tenant.team}", tenant.path)
    }
    jobs: dict[str, PendingJob] = {}
    for tenant in tenants:
        for number in range(8):
            name = f"{tenant.path}/{number}"
            submitted = random.uniform(-1000.0, 0.0)
            jobs[name] = PendingJob(name, tenant, level, submitted, submitted, Shape())
    for core in pair:
        for path, share in shares.items():
            core.set_share(path, share)
        for number in range(3):
            core.put_worker(WorkerCapacity(f"w{number}", {0: KIND, 1: KIND}), 0.0)
        for job in jobs.values():
            core.enqueue(job, 0.0)
    return jobs
