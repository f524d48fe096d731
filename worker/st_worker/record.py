"""What is kept on disk of an attempt, so that a restarted agent can go on with it."""

import json
from datetime import datetime
from typing import Any, Final, Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict

from st_shared.durable import write_whole
from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import ClaimReply, Failure, Lease
from st_worker.errors import FULL_DISK, UsageError
from st_worker.folder import AttemptFolder
from st_worker.slot_time import Instant

log = structlog.get_logger(__name__)

StopCause = Literal["cancel", "preempt", "stale", "shutdown", "time_limit"]
"""A ``StopReason`` of the controller, or a reason of the agent's own."""

FORMAT: Final = 3
"""Of the records that this agent writes; it reads those from 1 on.

1. ``pid`` of the supervisor
2. ``process`` in its place, which knows when it was started; ``root``
3. ``began`` and ``used_seconds``
"""

JobKind = Literal["train", "command", "noop"]
"""As ``JobSpec.kind``."""

_BESIDE_TRAINING: tuple[JobKind, ...] = ("command", "noop")


class Ending(BaseModel):
    """How an attempt ended, as it will be reported."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Literal[Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.PREEMPTED]
    failure: Failure | None = None


class RecordedProcess(BaseModel):
    """The supervisor of an attempt, told from whatever else may get its pid later."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    """It leads the session of trainer or script."""
    started: float | None = None
    """Seconds since 1970; none: an agent from before format 2 has not written it down."""


class AttemptRecord(BaseModel):
    """The claim, and how far it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[3] = FORMAT
    claim: ClaimReply
    claimed_at: datetime
    began: Instant | None = None
    """When the answer to its claim came; none: not written down before format 3."""
    root: str | None = None
    """Where the attempt's folder lay when it was claimed; none: not written down by format 1."""
    process: RecordedProcess | None = None
    """Once it was started."""
    stop: StopCause | None = None
    """The strongest order to stop so far."""
    ending: Ending | None = None
    """Once trainer or script has ended."""
    used_seconds: float | None = None
    """From ``began`` until it had ended; none: it has not, or nobody knows."""

    @classmethod
    def load(cls, folder: AttemptFolder) -> Self:
        """The record of an attempt, also one that an older agent wrote.

        Raises:
            ValidationError: it is damaged.
            UsageError: a newer agent wrote it.
        """
        raw = folder.record.read_bytes()
        try:
            document = json.loads(raw)
        except ValueError:
            return cls.model_validate_json(raw)  # whose error says where it is damaged
        return cls.model_validate(_upgraded(document, folder))

    def save(self, folder: AttemptFolder) -> None:
        """Keep it, through any end of this process.

        The disk is not waited for, which would hold heartbeats up. A power cut ends what runs as
        well; a record that it damages is set aside, and the job goes on from its last checkpoint.
        """
        write_whole(folder.record, self.model_dump_json(), synced=False)

    @property
    def pid(self) -> int | None:
        """Of the supervisor, once it was started."""
        return self.process.pid if self.process else None

    @property
    def lease(self) -> Lease:
        """The right to run it."""
        return Lease(attempt_id=self.claim.attempt_id, epoch=self.claim.epoch)

    @property
    def kind(self) -> JobKind:
        """What the job does."""
        for kind in _BESIDE_TRAINING:
            if self.claim.spec.get(kind) is not None:
                return kind
        return "train"

    @property
    def noop_seconds(self) -> float:
        """How long a noop lasts."""
        return float(self.claim.spec["noop"]["seconds"])

    @property
    def grace(self) -> float | None:
        """Seconds in which it comes to a checkpoint when it is told to; none: as usual here."""
        given = self.claim.spec.get("grace")  # older controllers do not tell it
        return None if given is None else float(given)

    def time_left(self, now: datetime) -> float:
        """Seconds until the time limit, which counts from the claim, restarts included."""
        return self.until(float(self.claim.spec["time_limit"]), now)

    @property
    def elapsed(self) -> float | None:
        """Seconds since the claim by a clock that nobody sets; none: nobody knows."""
        return self.began.elapsed() if self.began else None

    def until(self, seconds: float, now: datetime) -> float:
        """Seconds from ``now`` until ``seconds`` after the claim, at least 0.

        A clock that is set meanwhile neither ends a job nor gives it more time. The host's clock
        counts where an older agent wrote the record, or the host was started again.
        """
        elapsed = self.elapsed
        passed = (now - self.claimed_at).total_seconds() if elapsed is None else elapsed
        return max(0.0, seconds - passed)


def _upgraded(document: Any, folder: AttemptFolder) -> Any:
    """A record of any format as this one; what is no record at all is left to be refused."""
    if not isinstance(document, dict):
        return document
    written = document.get("format", 1)
    if isinstance(written, int) and written > FORMAT:
        raise UsageError(
            f"{folder.record} was written by a newer agent (format {written}; this one reads up "
            f"to {FORMAT}): start that version again; nothing was changed, and what runs goes on"
        )
    if written == 1:
        pid = document.pop("pid", None)
        document["process"] = None if pid is None else {"pid": pid}
    if written in (1, 2):
        document["format"] = FORMAT
    return document


class KeptRecord:
    """A record and the file that it is kept in."""

    def __init__(self, folder: AttemptFolder, record: AttemptRecord) -> None:
        self._folder, self._record = folder, record

    def __call__(self) -> AttemptRecord:
        """The record as it is now."""
        return self._record

    def change(
        self,
        *,
        process: RecordedProcess | None = None,
        stop: StopCause | None = None,
        ending: Ending | None = None,
        used_seconds: float | None = None,
    ) -> None:
        """Take what is given, and keep it on disk before anything else happens.

        A full disk is no reason to give an attempt up: all of it is found out again by the next
        agent (the process by its folder, its end by its note, orders with the next heartbeat).
        """
        given = {
            "process": process,
            "stop": stop,
            "ending": ending,
            "used_seconds": used_seconds,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        self._record = self._record.model_copy(update=changes)
        try:
            self._record.save(self._folder)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            log.warning("record.not_kept", changes=sorted(changes), why=str(error))
