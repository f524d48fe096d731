"""JobSpec: what a person submits."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from st_shared.clock import in_utc
from st_shared.spec.duration import Duration
from st_shared.spec.places import FieldError
from st_shared.spec.secret_names import SecretName, SecretVariable
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
        1,
        ge=1,
        le=256,
        description="Workers that train together; each gives `slots`, all of them or none.",
    )
    labels: dict[
        Annotated[str, Field(min_length=1, max_length=63)],
        Annotated[str, Field(min_length=1, max_length=200)],
    ] = Field(
        default_factory=dict,
        max_length=32,
        description="Globs that the worker's labels must match.",
    )
    provider: str = Field(
        "*",
        min_length=1,
        max_length=200,
        description="Glob of the worker's label `provider`; workers without it are `static`.",
    )


class RetryPolicy(Section):
    """What happens after a failure that may pass."""

    max_attempts: int = Field(3, ge=1, le=100, description="Tries in all, the first included.")
    backoff: Duration = Field(
        10.0, description="Pause before the second try; doubled before each further one, up to 1h."
    )


class CommandSpec(Section):
    """A shell command instead of a training, for pipelines; needs the permission `job.command`."""

    run: str = Field(
        min_length=1,
        max_length=65_536,
        description="Script for `/bin/sh -e`, run in the attempt's folder.",
    )


class NoopSpec(Section):
    """Nothing at all, for tests of a pipeline and for benchmarks."""

    seconds: float = Field(0, ge=0, le=86_400, description="How long it does nothing.")


_SECTIONS = ("training", "command", "noop")
"""What a job may do; one of them is given."""

_SHORTEST_NOOP = 0.1
"""Seconds that one takes at least from claim to end."""

ParentFailure = Literal["cancel", "hold"]
"""What becomes of a job whose parent did not succeed."""


class JobSpec(Section):
    """One job: what to train, what it needs, how important it is. Immutable once submitted."""

    name: str = Field(
        min_length=1,
        max_length=120,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$",
        description="A name for people; it need not be unique.",
    )
    team: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="One of your teams, as which it is submitted; your first one by default.",
    )
    config: str | None = Field(
        None,
        min_length=1,
        max_length=80,
        description="Name of a saved configuration; what the file says besides is laid over it.",
    )
    priority: Priority = Field(Priority.NORMAL, description="Class of the queue.")
    resources: ResourceRequest = Field(default_factory=ResourceRequest)
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    time_limit: Duration = Field(
        86_400.0, description='Longest wall-clock time of one attempt, such as "6h".'
    )
    expected_time: Duration | None = Field(
        None,
        description="How long it will take, as far as you know; for forecasts, reservations and "
        "what quotas hold. A noop that says nothing declares its `seconds`.",
    )
    grace: Annotated[Duration, Field(le=3600)] | None = Field(
        None,
        description="How long it may take to come to a checkpoint once it is told to stop, up to "
        "1h; then it is killed. Without it the worker decides: 60s.",
    )
    preemptible: bool = Field(
        True,
        description="Whether urgent work may stop it at a checkpoint and queue it again.",
    )
    bypass_quota: bool = Field(
        False,
        description="Let it pass quotas that block, which count it all the same; needs the "
        "permission `job.bypass.quota`.",
    )
    not_before: Annotated[AwareDatetime, AfterValidator(in_utc)] | None = Field(
        None, description="Moment before which it does not start, with its offset from UTC."
    )
    after: list[Annotated[str, Field(min_length=1, max_length=121)]] = Field(
        default_factory=list,
        max_length=100,
        description="Ids of jobs that must succeed first; `@name` means a job of the same batch.",
    )
    on_parent_failure: ParentFailure = Field(
        "cancel", description="What to do when a job in `after` does not succeed."
    )
    secrets: dict[SecretVariable, SecretName] = Field(
        default_factory=dict,
        max_length=32,
        description="Environment variables of the attempt -> names of stored secrets; "
        "`st secrets set NAME` stores one.",
    )
    training: TrainingSpec | None = Field(None, description="What to train.")
    command: CommandSpec | None = Field(None, description="A shell command instead of a training.")
    noop: NoopSpec | None = Field(None, description="Nothing, for tests and benchmarks.")

    @property
    def kind(self) -> Literal["train", "command", "noop"]:
        """What the job does."""
        if self.training is not None:
            return "train"
        return "command" if self.command is not None else "noop"

    @property
    def expected_seconds(self) -> float | None:
        """How long an attempt takes as declared; a noop declares it by its ``seconds``."""
        if self.expected_time is None and self.noop is not None:
            return max(_SHORTEST_NOOP, self.noop.seconds)
        return self.expected_time

    def scripts(self) -> list[str]:
        """Fields that hold shell commands, which need the permission `job.command`."""
        found = ["command"] if self.command is not None else []
        if self.training is not None:
            found += [f"training.{field}" for field in self.training.scripts()]
        return found

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        given = [name for name in _SECTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            said = "give exactly one of `training`, `command` and `noop`"
            raise FieldError(said, given[1] if given else _SECTIONS[0])
        return self

    @model_validator(mode="after")
    def _waits_for_each_once(self) -> Self:
        for number, parent in enumerate(self.after):
            if parent in self.after[:number]:
                raise FieldError(f"{parent} stands here twice: drop one", "after", number)
        return self
