"""The journal: what the trainer writes, one JSON object a line, in append-only NDJSON.

``seq`` counts lines from 1 within an attempt. It is what makes delivery exactly-once: the
controller stores line ``n`` only after line ``n - 1`` and drops lines that it already has.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from st_shared.protocol.message import LARGEST_NUMBER

JOURNAL_NAME = "journal.ndjson"
"""File name of the journal in a run folder."""

MAX_LINE_BYTES = 65_536
"""Longest line of a journal, newline included; writers shorten what is longer."""

RelativePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
    ),
]
"""A path below the run folder: forward slashes, no part that begins with a dot."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int = Field(ge=1)
    at: datetime


class LogEvent(_Event):
    """A line for people."""

    kind: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: str = Field(max_length=16_384)


class MetricEvent(_Event):
    """Numbers measured at one step, such as ``{"loss": 0.41, "learning_rate": 0.001}``."""

    kind: Literal["metric"] = "metric"
    step: int = Field(ge=0)
    values: dict[str, float] = Field(max_length=256)


class ProgressEvent(_Event):
    """How far the run is."""

    kind: Literal["progress"] = "progress"
    phase: Literal["loading", "caching", "training", "validating", "saving", "done"]
    """``caching``: ``step`` and ``steps`` count what is encoded ahead of the first step."""
    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    steps_per_second: float | None = Field(None, ge=0)
    eta_seconds: float | None = Field(None, ge=0)
    loss: float | None = None


class SampleEvent(_Event):
    """A picture (or clip) was drawn and lies complete in the run folder."""

    kind: Literal["sample"] = "sample"
    step: int = Field(ge=0)
    path: RelativePath
    prompts: list[str] = Field(default_factory=list, max_length=256)


class CheckpointEvent(_Event):
    """A checkpoint is complete: its manifest, written last, lists every file and checksum."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int = Field(ge=0)
    manifest: RelativePath


class OutputEvent(_Event):
    """A file of the final result is complete, such as the weights or the loss curve."""

    kind: Literal["output"] = "output"
    name: Literal["weights", "loss_curve", "sample_grid", "report", "log", "file"]
    """What it is; ``file``: what lies beside the weights, or whatever a script left."""
    path: RelativePath


JournalEvent = Annotated[
    LogEvent | MetricEvent | ProgressEvent | SampleEvent | CheckpointEvent | OutputEvent,
    Field(discriminator="kind"),
]
"""Any line of a journal."""

journal_event: TypeAdapter[JournalEvent] = TypeAdapter(JournalEvent)
"""Reads and checks one line: ``journal_event.validate_json(line)``."""


class ManifestFile(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: RelativePath
    """Relative to the folder of the manifest."""
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CheckpointManifest(BaseModel):
    """``manifest.json``: written last, so a checkpoint with a manifest is whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    step: int = Field(ge=0, le=LARGEST_NUMBER)
    spec_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Checksum of the TrainingSpec that made it; resuming another one is refused."""
    files: list[ManifestFile] = Field(min_length=1, max_length=10_000)


class ExitCode:
    """Exit codes of ``st-train run``, which the worker turns into an outcome."""

    SUCCEEDED = 0
    CRASHED = 1
    BAD_SPEC = 2
    PREEMPTED = 3
    """SIGTERM was followed by a checkpoint."""
    BAD_DATA = 4
    NOT_FINITE = 5
    OUT_OF_MEMORY = 6
    DISK_FULL = 7
    PEER_LOST = 8
    """Another process of the same training ended, or did not answer."""
    DEVICE_FAULT = 9
    """The accelerator, its driver or what connects accelerators failed."""
