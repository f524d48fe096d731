"""What the scheduler sees: pending jobs and free slots, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from st_shared.protocol.worker import Slot
from st_shared.spec.job import ResourceRequest


@dataclass(frozen=True)
class PendingJob:
    """A job that waits for a worker."""

    id: str
    level: int
    """Priority class; higher is served first."""
    submitted_at: datetime
    request: ResourceRequest


@dataclass(frozen=True)
class WorkerCapacity:
    """A worker that takes jobs, with the slots that nobody holds."""

    id: str
    free: Sequence[Slot]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class ClusterState:
    """Everything that a decision rests on."""

    pending: Sequence[PendingJob]
    workers: Sequence[WorkerCapacity]


@dataclass(frozen=True)
class Placement:
    """A decision: this job on these slots of this worker."""

    job_id: str
    worker_id: str
    slots: tuple[int, ...]


class Scheduler(Protocol):
    """Decides who is served; pure, so that it can be replayed and simulated."""

    def decide(self, state: ClusterState, now: datetime) -> list[Placement]:
        """Placements to be offered now, in order; no slot is used twice."""
        ...
