"""Claims of many workers that come at the same time, answered in one transaction."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from st_controller.domain.workers import Patience
from st_controller.errors import Refusal, StaleLease
from st_controller.services import claims, leases, worker_orders
from st_controller.services.caller import WorkerCaller
from st_controller.services.combining import GATHERED, Combining
from st_controller.store.database import Database, DatabaseError
from st_controller.store.schema import Attempt, Job
from st_shared.objectstore import ObjectStore
from st_shared.protocol.worker import ClaimReply

MOST = 16
"""Calls in one transaction; each may ask for many attempts."""


class Wanted(NamedTuple):
    """Offers that one worker takes up."""

    caller: WorkerCaller
    attempt_ids: tuple[str, ...]


@dataclass(slots=True)
class Claimed:
    """What became of them."""

    claims: list[ClaimReply]
    """As many as one answer holds; the others are held, too, and asked for again."""
    refused: dict[str, StaleLease] = field(default_factory=dict)
    waits: list[timedelta] = field(default_factory=list)
    """How long the jobs of those that are held were in the queue."""


class JointClaims:
    """Gives leases; those of many workers cost one commit, and a refusal only its own."""

    def __init__(self, db: Database, objects: ObjectStore, patience: Patience) -> None:
        self._db, self._objects, self._patience = db, objects, patience
        retried = (Refusal, DatabaseError)
        self._combining = Combining(self._together, self._alone, retried, MOST, gather=GATHERED)

    async def take(self, caller: WorkerCaller, attempt_ids: Sequence[str]) -> Claimed:
        """Claim what a worker was offered; asking again gives the same leases."""
        return await self._combining.do(Wanted(caller, tuple(dict.fromkeys(attempt_ids))))

    def _alone(self, wanted: Wanted) -> Claimed:
        (claimed,) = self._together([wanted])
        return claimed

    def _together(self, calls: Sequence[Wanted]) -> list[Claimed]:
        pairs = [(call.caller.worker_id, each) for call in calls for each in call.attempt_ids]
        others: list[str] = []
        with self._db.write() as tx, ExitStack() as around:
            for caller in sorted({call.caller for call in calls}, key=lambda c: c.worker_id):
                others += around.enter_context(worker_orders.one_job_at_most(tx, caller))
            answers = iter(leases.claim_all(tx, pairs, self._patience, others))
        # Downloads are signed after the commit: others wait for the locks. Whoever dies here, or
        # is retried, is given the same leases again.
        with self._db.read() as session:
            return [
                self._claimed(session, {each: next(answers) for each in call.attempt_ids})
                for call in calls
            ]

    def _claimed(
        self, session: Session, answers: dict[str, tuple[Attempt, Job] | StaleLease]
    ) -> Claimed:
        held = [each for each in answers.values() if not isinstance(each, StaleLease)]
        return Claimed(
            claims=list(claims.claim_replies(session, self._objects, held)),
            refused={
                attempt_id: each
                for attempt_id, each in answers.items()
                if isinstance(each, StaleLease)
            },
            waits=[
                (attempt.claimed_at or self._db.clock()) - (job.queued_at or job.submitted_at)
                for attempt, job in held
            ],
        )
