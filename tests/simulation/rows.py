"""What the simulated database holds; moments are seconds of the virtual clock."""

from dataclasses import dataclass, field

from st_controller.domain.scheduling.model import (
    Grant,
    Level,
    PendingJob,
    RunningJob,
    Shape,
    Tenant,
    WorkerCapacity,
)
from st_shared.protocol.states import AttemptState, JobState, Outcome


@dataclass(slots=True)
class JobRow:
    """A job; ``duration`` and ``fate`` are known to workers alone."""

    id: str
    tenant: Tenant
    level: Level
    submitted: float
    shape: Shape
    duration: float
    fate: str = "succeeds"
    """Of a run that nothing disturbs: succeeds, fails, or is broken (fails for good)."""
    queued: float = 0.0
    override: Level | None = None
    not_before: float = 0.0
    array: str | None = None
    parents: set[str] = field(default_factory=set)
    """Jobs that have to succeed first."""
    preemptible: bool = True
    wants: tuple[str, ...] = ()
    max_attempts: int = 3
    state: JobState = JobState.QUEUED
    attempts: int = 0
    tries_used: int = 0
    preemptions: int = 0
    cancel_requested: bool = False

    @property
    def served_level(self) -> Level:
        """The override where there is one."""
        return self.level if self.override is None else self.override

    def as_pending(self) -> PendingJob:
        """As the scheduler is told of it."""
        return PendingJob(
            self.id,
            self.tenant,
            self.served_level,
            self.submitted,
            self.queued,
            self.shape,
            not_before=self.not_before,
            wants=self.wants,
            array=self.array,
            preemptible=self.preemptible,
            preemptions=self.preemptions,
        )


@dataclass(slots=True)
class AttemptRow:
    """One try of a job; a gang is one attempt on several workers."""

    id: str
    job: str
    epoch: int
    grants: tuple[Grant, ...]
    price: float
    """Of one of its slots for one second, on average over the workers."""
    offered: float
    expires: float
    claimed: set[str] = field(default_factory=set)
    """Workers of the gang that have taken it."""
    state: AttemptState = AttemptState.OFFERED
    stop: bool = False
    checkpoint: float | None = None
    finished: float | None = None
    outcome: Outcome | None = None

    @property
    def slots(self) -> int:
        """On all workers together."""
        return sum(len(grant.slots) for grant in self.grants)

    def as_running(self, job: JobRow) -> RunningJob:
        """As a scheduler is told of it that takes over."""
        return RunningJob(
            job.as_pending(),
            self.grants,
            self.offered,
            self.checkpoint,
            stopping=self.stop,
            price=self.price,
        )


@dataclass(slots=True)
class WorkerRow:
    """A worker as the controller knows it."""

    capacity: WorkerCapacity
    heard: float
    """Last moment at which it answered; infinite while it does."""
    is_online: bool = True
    is_active: bool = True
    """Not draining."""

    @property
    def takes_jobs(self) -> bool:
        """Whether the scheduler is told of it."""
        return self.is_online and self.is_active
