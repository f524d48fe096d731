"""What is kept on disk of an attempt, so that a restarted agent can go on with it."""

from datetime import datetime
from typing import Literal, Self

import structlog
from pydantic import BaseModel, ConfigDict

from st_shared.durable import write_whole
from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import ClaimReply, Failure, Lease
from st_worker.errors import FULL_DISK
from st_worker.folder import AttemptFolder

log = structlog.get_logger(__name__)

StopCause = Literal["cancel", "preempt", "stale", "shutdown", "time_limit"]
"""A ``StopReason`` of the controller, or a reason of the agent's own."""

JobKind = Literal["train", "command", "noop"]
"""As ``JobSpec.kind``."""

_BESIDE_TRAINING: tuple[JobKind, ...] = ("command", "noop")


class Ending(BaseModel):
    """How an attempt ended, as it will be reported."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Literal[Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.PREEMPTED]
    failure: Failure | None = None


class AttemptRecord(BaseModel):
    """The claim, and how far it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: ClaimReply
    claimed_at: datetime
    pid: int | None = None
    """Of the supervisor, once it was started; it leads the session of trainer or script."""
    stop: StopCause | None = None
    """The strongest order to stop so far."""
    ending: Ending | None = None
    """Once trainer or script has ended."""

    @classmethod
    def load(cls, folder: AttemptFolder) -> Self:
        """The record of an attempt."""
        return cls.model_validate_json(folder.record.read_bytes())

    def save(self, folder: AttemptFolder) -> None:
        """Keep it."""
        write_whole(folder.record, self.model_dump_json())

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

    def time_left(self, now: datetime) -> float:
        """Seconds until the time limit, which counts from the claim, restarts included."""
        return self.until(float(self.claim.spec["time_limit"]), now)

    def until(self, seconds: float, now: datetime) -> float:
        """Seconds from ``now`` until ``seconds`` after the claim, at least 0."""
        return max(0.0, seconds - (now - self.claimed_at).total_seconds())


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
        pid: int | None = None,
        stop: StopCause | None = None,
        ending: Ending | None = None,
    ) -> None:
        """Take what is given, and keep it on disk before anything else happens.

        A full disk is no reason to give an attempt up: all of it is found out again by the next
        agent (the process by its folder, its end by its note, orders with the next heartbeat).
        """
        given = {"pid": pid, "stop": stop, "ending": ending}
        changes = {name: value for name, value in given.items() if value is not None}
        self._record = self._record.model_copy(update=changes)
        try:
            self._record.save(self._folder)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            log.warning("record.not_kept", changes=sorted(changes), why=str(error))
