"""The states of jobs, attempts and workers. Which may follow which is the controller's rule."""

from enum import StrEnum


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

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may end otherwise."""
        return self not in _PERMANENT_FAILURES


_PERMANENT_FAILURES = frozenset(
    {
        FailureKind.BAD_SPEC,
        FailureKind.BAD_DATA,
        FailureKind.NOT_FINITE,
        FailureKind.TIME_LIMIT,
    }
)


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
    DRAINING = "draining"
    """Finishes what it has and takes nothing new."""
    RETIRED = "retired"
    """May not come back; its credential is void."""
