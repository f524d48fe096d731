"""JobSpec: what a person submits."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from st_shared.spec.duration import Duration
from st_shared.spec.section import Section
from st_shared.spec.training import TrainingSpec


class Priority(StrEnum):
    """Priority classes, lowest first."""

    LOW = "low"
    """Work that may wait; level 0."""
    NORMAL = "normal"
    """The default; level 10."""
    HIGH = "high"
    """Before ordinary work; level 20."""
    URGENT = "urgent"
    """May preempt lower classes; level 30."""
    CRITICAL = "critical"
    """Before everything else; level 40."""

    @property
    def level(self) -> int:
        """The number that the scheduler sorts by; higher is served first."""
        return 10 * list(Priority).index(self)


class ResourceRequest(Section):
    """What one node of the job needs."""

    slots: int = Field(1, ge=1, le=1024, description="Accelerators (or CPU shares) of one node.")
    accelerator: str = Field(
        "*",
        min_length=1,
        max_length=200,
        description='Globs of accelerator names, joined by "|"; letter case is ignored.',
    )
    min_memory_gb: float = Field(
        0, ge=0, le=4096, description="Memory that each slot must have at least, GiB."
    )
    nodes: int = Field(
        1, ge=1, le=1, description="Workers that train together; only 1 is supported."
    )
    labels: dict[
        Annotated[str, Field(min_length=1, max_length=63)],
        Annotated[str, Field(min_length=1, max_length=200)],
    ] = Field(
        default_factory=dict,
        max_length=32,
        description="Globs that the worker's labels must match.",
    )


class RetryPolicy(Section):
    """What happens after a failure that may pass."""

    max_attempts: int = Field(3, ge=1, le=100, description="Tries in all, the first included.")


class JobSpec(Section):
    """One job: what to train, what it needs, how important it is. Immutable once submitted."""

    name: str = Field(
        min_length=1,
        max_length=120,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$",
        description="A name for people; it need not be unique.",
    )
    priority: Priority = Field(Priority.NORMAL, description="Class of the queue.")
    resources: ResourceRequest = Field(default_factory=ResourceRequest)
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    time_limit: Duration = Field(
        86_400.0, description='Longest wall-clock time of one attempt, such as "6h".'
    )
    training: TrainingSpec
