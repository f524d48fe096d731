"""The states of jobs, attempts and workers. Which may follow which is the controller's rule."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class JobState(StrEnum):
    """Where a job stands."""

    AWAITING_APPROVAL = "awaiting_approval"
    """Submitted, but a rule asks a person first; nothing can start it."""
    QUEUED = "queued"
    """Waits for a worker."""
    ASSIGNED = "assigned"
    """Offered to or claimed by a worker; training has not begun."""
    RUNNING = "running"
    """A worker trains it."""
    SUCCEEDED = "succeeded"
    """Done; its artifacts are complete."""
    FAILED = "failed"
    """Ended by an error that no further attempt will mend."""
    CANCELLED = "cancelled"
    """Ended because a person asked for it."""
    REJECTED = "rejected"
    """An approver said no."""

    @property
    def is_final(self) -> bool:
        """Whether nothing can change any more."""
        return self in _FINAL_JOB_STATES


_FINAL_JOB_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.REJECTED}
)


class AttemptState(StrEnum):
    """Where one try of a job stands."""

    OFFERED = "offered"
    """A worker was asked to take it."""
    CLAIMED = "claimed"
    """A worker owns it: it holds the lease."""
    PREPARING = "preparing"
    """Datasets and checkpoints are being fetched."""
    RUNNING = "running"
    """The trainer process is alive."""
    UPLOADING = "uploading"
    """The trainer has ended; artifacts are on their way."""
    FINISHED = "finished"
    """Over; the outcome says how."""


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    """Trained to the end and everything is stored."""
    FAILED = "failed"
    """The trainer ended with an error."""
    CANCELLED = "cancelled"
    """Stopped because the job was cancelled."""
    PREEMPTED = "preempted"
    """Stopped at a checkpoint to make room; the job is queued again."""
    LOST = "lost"
    """The worker fell silent and its lease ran out."""
    EXPIRED = "expired"
    """Offered, but not claimed in time."""


class FailureKind(StrEnum):
    """Why an attempt failed, as far as the worker can tell."""

    BAD_SPEC = "bad_spec"
    """The specification asks for something impossible; trying again would not help."""
    BAD_DATA = "bad_data"
    """No usable samples, or the dataset cannot be read; trying again would not help."""
    NOT_FINITE = "not_finite"
    """The loss became NaN or infinite."""
    OUT_OF_MEMORY = "out_of_memory"
    """Accelerator or host memory was not enough."""
    DISK_FULL = "disk_full"
    """The worker's disk was full."""
    TIME_LIMIT = "time_limit"
    """The attempt ran longer than the job's time limit."""
    KILLED = "killed"
    """The trainer was ended by a signal that the worker did not send."""
    CRASHED = "crashed"
    """Any other error of the trainer."""
    TRANSFER = "transfer"
    """A dataset or checkpoint could not be fetched, or an artifact could not be stored."""
    DEVICE_FAULT = "device_fault"
    """The accelerator, its driver or what connects accelerators failed."""
    PEER_LOST = "peer_lost"
    """Another process of the same training ended or did not answer."""

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may end otherwise."""
        return FAILURES[self].is_retryable

    @property
    def mend(self) -> str:
        """What a person can do about it, cheapest first."""
        return FAILURES[self].mend

    @property
    def suspects_slots(self) -> bool:
        """Whether the slots that it happened on may be broken."""
        return FAILURES[self].suspects_slots


class FailureRule(NamedTuple):
    """What follows from a kind of failure."""

    is_retryable: bool
    mend: str
    suspects_slots: bool = False


FAILURES: Mapping[FailureKind, FailureRule] = MappingProxyType(
    {
        FailureKind.BAD_SPEC: FailureRule(False, "correct the job file"),
        FailureKind.BAD_DATA: FailureRule(False, "correct the dataset and push it again"),
        FailureKind.NOT_FINITE: FailureRule(
            False, "lower optimizer.learning_rate, or look at the files that the message names"
        ),
        FailureKind.OUT_OF_MEMORY: FailureRule(
            True, "lower training.batch_size or ask for slots with more memory (min_memory_gb)"
        ),
        FailureKind.DISK_FULL: FailureRule(
            True, "free space on the worker, or keep fewer checkpoints (checkpoint.keep_last)"
        ),
        FailureKind.TIME_LIMIT: FailureRule(False, "raise time_limit; a retry goes on"),
        FailureKind.KILLED: FailureRule(True, "look at who ends processes on the worker"),
        FailureKind.CRASHED: FailureRule(True, "read the last lines of the log"),
        FailureKind.TRANSFER: FailureRule(True, "look at the network and the object store"),
        FailureKind.DEVICE_FAULT: FailureRule(
            True, "look at the accelerator of the worker (driver log, Xid, ECC counts)", True
        ),
        FailureKind.PEER_LOST: FailureRule(True, "look at what ended the other process"),
    }
)
"""The one table that decides whether a failed attempt is followed by another."""


class WorkerState(StrEnum):
    """What is observed of a worker."""

    JOINING = "joining"
    """Registered; its stream has not been seen."""
    ONLINE = "online"
    """Heartbeats arrive."""
    SILENT = "silent"
    """Heartbeats have stopped; its attempts still hold their leases."""
    GONE = "gone"
    """Silent past its lease, or signed off."""


class WorkerDesired(StrEnum):
    """What an operator wants of a worker; a heartbeat never changes it."""

    ACTIVE = "active"
    """Takes jobs."""
    CORDONED = "cordoned"
    """Takes nothing new; what it runs is left alone, and it stays."""
    DRAINING = "draining"
    """Gives up what it has, by the end of the job or by a checkpoint, and takes nothing new."""
    RETIRED = "retired"
    """May not come back; its credential is void."""
