"""A random world to schedule in: workers, tenants, rules, and the jobs that will come."""

from dataclasses import dataclass, replace
from random import Random

from simulation.rows import JobRow
from st_controller.domain.scheduling.model import (
    Level,
    Policy,
    Shape,
    Share,
    SlotKind,
    Tenant,
    WorkerCapacity,
    limit_step,
)

CPU, A40, A80, H80 = (
    SlotKind("cpu", 16.0),
    SlotKind("NVIDIA A100", 40.0),
    SlotKind("NVIDIA A100", 80.0),
    SlotKind("NVIDIA H100", 80.0),
)
ARRIVALS = 600.0
"""Seconds in which jobs come and things break."""
MIXED = "array1"
"""A job array whose jobs differ in class and shape."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a schedule is made of; the jobs come at their moment of submission."""

    policy: Policy
    workers: tuple[WorkerCapacity, ...]
    shares: dict[str, Share]
    caps: dict[str, int]
    jobs: tuple[JobRow, ...]


def scenario(random: Random) -> Scenario:
    """A small world, tight enough that jobs wait for each other."""
    tenants = _tenants(random)
    caps = {f"array{n}": random.randint(1, 3) for n in range(random.randint(0, 2))}
    workers = tuple(worker(random, f"w{n}") for n in range(random.randint(1, 6)))
    shapes = [_shape(random, workers) for _ in range(random.randint(1, 7))]
    jobs: list[JobRow] = []
    for number in range(random.randint(8, 40)):
        jobs.append(_job(random, f"j{number:02}", tenants, shapes, list(caps), jobs))
    return Scenario(_policy(random), workers, _shares(random, tenants, shapes), caps, tuple(jobs))


def worker(random: Random, name: str) -> WorkerCapacity:
    """A worker of some kind."""
    kinds = random.choice(
        ([CPU], [CPU] * 2, [CPU] * 4, [A80] * 2, [A80] * 8, [H80] * 8, [H80] * 2, [A40, A40, A80])
    )
    labels = {"region": random.choice(("eu-west", "eu-north", "us-east"))}
    return WorkerCapacity(
        name,
        dict(enumerate(kinds)),
        labels if random.random() < 0.8 else {},
        random.choice(("static", "static", "cloud-a", "cloud-b")),
        random.choice((1.0, 1.0, 2.5, 4.0)),
        frozenset(random.sample(("base", "cats", "dogs"), random.randint(0, 2))),
    )


def _policy(random: Random) -> Policy:
    return Policy(
        ageing_interval=random.choice((60.0, 200.0, 3600.0)),
        half_life=random.choice((600.0, 7200.0, 7 * 86_400.0)),
        horizon=random.choice((60.0, 900.0)),
        catch_up=random.choice((60.0, 3600.0)),
        max_preemptions=random.randint(1, 3),
        preemption_grace=random.choice((20.0, 60.0)),
        settle_interval=random.choice((5.0, 30.0)),
    )


def _tenants(random: Random) -> list[Tenant]:
    return [
        Tenant(f"org{org}", f"team{team}", f"user{user}")
        for org in range(random.randint(1, 3))
        for team in range(random.randint(1, 2))
        for user in range(random.randint(1, 3))
    ]


def _shares(random: Random, tenants: list[Tenant], shapes: list[Shape]) -> dict[str, Share]:
    """Weights and limits; none so low that a job of some shape could never run."""
    largest = max(shape.total for shape in shapes)
    paths = {path for t in tenants for path in (t.org, f"{t.org}/{t.team}", t.path)}
    found: dict[str, Share] = {}
    for path in sorted(paths):
        if random.random() < 0.6:
            found[path] = share(random, largest)
    if random.random() < 0.2:
        found[""] = replace(share(random, largest), weight=1.0)
    return found


def share(random: Random, least_slots: int) -> Share:
    """A weight, and perhaps limits."""
    return Share(
        random.choice((0.5, 1.0, 1.0, 2.0, 5.0)),
        random.randint(1, 5) if random.random() < 0.3 else None,
        least_slots + random.randint(0, 6) if random.random() < 0.3 else None,
    )


def _shape(random: Random, workers: tuple[WorkerCapacity, ...]) -> Shape:
    """Mostly something that one of the workers could run."""
    like = random.choice(workers)
    kind = random.choice(list(like.slots.values()))
    size = random.randint(1, len(like.slots)) if random.random() < 0.9 else len(like.slots) + 1
    accelerator = random.choice(("*", kind.accelerator, f"none|{kind.accelerator[:-1].lower()}*"))
    region = random.choice(("eu-*", "us-*", "*")) if random.random() < 0.2 else None
    return Shape(
        slots=random.choice((1, 1, size)),
        accelerator=accelerator,
        min_memory_gb=random.choice((0.0, 0.0, kind.memory_gb)),
        nodes=random.choice((2, 2, 3)) if random.random() < 0.25 else 1,
        labels=(("region", region),) if region else (),
        provider="cloud-*" if random.random() < 0.1 else "*",
        limit=limit_step(random.uniform(60.0, 900.0)),
    )


def _job(
    random: Random,
    name: str,
    tenants: list[Tenant],
    shapes: list[Shape],
    arrays: list[str],
    before: list[JobRow],
) -> JobRow:
    shape = random.choice(shapes)
    submitted = random.choice((0.0, random.uniform(0.0, ARRIVALS)))
    array = random.choice(arrays) if arrays and random.random() < 0.25 else None
    job = JobRow(
        name,
        random.choice(tenants),
        Level(random.choices(range(5), (2, 6, 2, 1, 1))[0]),
        submitted,
        shape,
        random.uniform(1.0, shape.limit),
        random.choices(("succeeds", "fails", "is broken"), (16, 2, 1))[0],
        queued=submitted,
        array=array,
        preemptible=random.random() < 0.7,
        wants=tuple(random.sample(("base", "cats", "dogs"), random.randint(0, 1))),
        max_attempts=random.randint(1, 4),
    )
    if array is not None:
        _like_its_array(job, before)
    if random.random() < 0.15:
        job.not_before = submitted + random.uniform(0.0, 200.0)
    parents = [other.id for other in before if other.submitted <= submitted]
    if parents and random.random() < 0.15:
        job.parents = set(random.sample(parents, 1))
    return job


def _like_its_array(job: JobRow, before: list[JobRow]) -> None:
    """The jobs of an array are of one user, those of most arrays of one class and shape as well."""
    first = next((other for other in before if other.array == job.array), None)
    if first is None:
        return
    job.tenant = first.tenant
    if job.array != MIXED:
        job.level, job.shape = first.level, first.shape
        job.duration = min(job.duration, first.shape.limit)
