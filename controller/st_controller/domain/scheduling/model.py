"""What the scheduler is told and what it decides, as plain values; moments are POSIX seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Self


class Level(IntEnum):
    """Priority classes as the scheduler sorts them; the value times ten is the public level."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3
    """From here on a job may preempt."""
    CRITICAL = 4
    """The highest class that a job can ask for, or reach by waiting."""
    FIRST = 5
    """Before everything else; only an admin's override gives it."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose share a job counts against."""

    org: str
    team: str
    user: str

    @property
    def path(self) -> str:
        """Such as ``org/team/user``."""
        return f"{self.org}/{self.team}/{self.user}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a job asks of the workers; jobs of one shape are interchangeable to the placement."""

    slots: int = 1
    """Of one node."""
    accelerator: str = "*"
    """Globs joined by ``|``; letter case is ignored."""
    min_memory_gb: float = 0.0
    """Of each slot, GiB."""
    nodes: int = 1
    """Workers that run it together; more than one make a gang."""
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted pairs of label and glob."""
    provider: str = "*"
    """Glob of the worker's provider."""
    limit: float = 86_400.0
    """Time limit, seconds, rounded up to a step of ``limit_step``."""
    content_gb: float = 0.0
    """Room that its datasets need on each worker, GiB, rounded up to a step; 0: next to none."""

    @property
    def total(self) -> int:
        """Slots on all nodes together."""
        return self.slots * self.nodes


def limit_step(seconds: float) -> float:
    """The time limit rounded up, four steps a doubling, which keeps the number of shapes small."""
    step = 60.0
    while step < seconds:
        step *= 2
    return next(part for part in (step * 0.625, step * 0.75, step * 0.875, step) if part >= seconds)


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A job that may be served from now on."""

    id: str
    tenant: Tenant
    level: Level
    """Its class, or the override."""
    submitted: float
    """Its turn among the jobs of its user; a retried job keeps it."""
    waiting_since: float
    """Since when it could be served: queued last, released by its parents, its moment come. Ageing
    counts from here."""
    shape: Shape
    not_before: float = 0.0
    wants: tuple[str, ...] = ()
    """Contents that a worker may hold already: dataset digests, base models."""
    array: str | None = None
    """Id of a job array whose number of running jobs is capped."""
    expected: float | None = None
    """Declared or learned duration, seconds; for forecasts."""
    preemptible: bool = True
    preemptions: int = 0
    may_preempt: bool = True
    """Whether its level, where it is urgent or more, lets it preempt."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Slots of one worker."""

    worker: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that holds slots, as the scheduler is told when it takes over from another."""

    job: PendingJob
    grants: tuple[Grant, ...]
    started: float
    checkpointed: float | None = None
    """When its newest complete checkpoint was stored."""
    stopping: bool = False
    """Whether it was told to yield."""
    price: float = 1.0
    """Weight of a slot-second, as it was when the slots were given."""


@dataclass(frozen=True, slots=True)
class SlotKind:
    """Equal slots of one worker."""

    accelerator: str
    memory_gb: float
    is_part: bool = False
    """An instance of a GPU that is cut up (MIG): CUDA shows a process one of them and no more, so
    a job has one on a worker."""

    @classmethod
    def told(cls, slot: Mapping[str, Any]) -> Self:
        """The kind of a slot in an inventory."""
        is_part = (slot.get("uuid") or "").startswith("MIG-")
        return cls(slot["accelerator"], slot["memory_gb"], is_part)


@dataclass(frozen=True, slots=True)
class WorkerCapacity:
    """A worker that takes jobs; ``slots`` maps the index of each slot to its kind."""

    id: str
    slots: dict[int, SlotKind]
    labels: dict[str, str] = field(default_factory=dict)
    provider: str = "static"
    price: float = 1.0
    """Weight of a slot-second here, where slots differ of the dearest."""
    holds: frozenset[str] = frozenset()
    """Contents that it has stored."""
    name: str = ""
    """For people."""
    busy: dict[int, tuple[SlotKind, str]] = field(default_factory=dict)
    """Slots that are not in ``slots`` because somebody who is no job uses them, and who."""
    content_room_gb: float = float("inf")
    """The most that the datasets of a job may take here, GiB."""
    prices: dict[int, float] = field(default_factory=dict)
    """By index the price of slots that cost less than the dearest."""

    def price_of(self, slots: Iterable[int]) -> float:
        """Weight of a second of these slots together."""
        return sum([self.prices.get(index, self.price) for index in slots])


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision: this job on these slots; several grants make a gang."""

    job_id: str
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Preemption:
    """A decision: these running jobs yield to ``job_id``, for which their slots are reserved."""

    job_id: str
    victims: tuple[str, ...]


Decision = Placement | Preemption


@dataclass(frozen=True, slots=True)
class Share:
    """Weight and limits of a node of the tenant tree."""

    weight: float = 1.0
    max_jobs: int | None = None
    max_slots: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that an admin may change."""

    ageing_interval: float = 3600.0
    """Seconds of waiting that raise a job by one class; bounded by the critical class."""
    half_life: float = 7 * 86_400.0
    """Seconds in which usage counts half."""
    horizon: float = 900.0
    """Seconds for which what runs now is counted ahead, so that ties are broken at once."""
    catch_up: float = 4 * 3600.0
    """Seconds of its fair share that a tenant which was idle may claim when it returns."""
    max_preemptions: int = 3
    """A job that was preempted so often is left alone."""
    preemption_grace: float = 120.0
    """Seconds in which a preempted job is expected to have yielded."""
    reserved_part: float = 0.15
    """Part of the slots for which a job may compete that is kept for heads of the line at most,
    where more than one waits for room."""
    settle_interval: float = 30.0
    """Seconds between two looks at the decay of all usage."""
