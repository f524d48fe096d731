"""Decisions of the scheduler made durable: offers, and orders to yield."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Row, bindparam, insert, select

from st_controller.domain.attempts import LEASED, LIVE
from st_controller.domain.scheduling.model import Placement
from st_controller.domain.workers import Patience
from st_controller.services.endings import end_attempt
from st_controller.services.moves import Queued, assign_jobs
from st_controller.services.worker_events import tell
from st_controller.store.bulk import insert_all
from st_controller.store.schema import Attempt, Job, Worker
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState, JobState, Outcome, WorkerDesired, WorkerState
from st_shared.protocol.worker import Offer, StopOrder

SCHEDULER = "scheduler"
"""Who acts, in the audit log."""


class Priced(NamedTuple):
    """A decision, and what a second of one of its slots weighs."""

    placement: Placement
    price: float

    @property
    def worker_id(self) -> str:
        """The worker that is to run it."""
        return self.placement.grants[0].worker

    @property
    def slots(self) -> tuple[int, ...]:
        """Its slots there."""
        return self.placement.grants[0].slots


class Offered(NamedTuple):
    """An attempt that was offered."""

    attempt_id: str
    job_id: str
    worker_id: str
    slots: tuple[int, ...]
    version: int
    """Of the job, now that it is assigned."""


_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_WORKERS = (
    select(Worker.id)
    .where(
        Worker.id.in_(_IDS),
        Worker.observed == WorkerState.ONLINE,
        Worker.desired == WorkerDesired.ACTIVE,
    )
    .order_by(Worker.id)
    .with_for_update()
)
_JOBS = (
    select(
        Job.id,
        Job.version,
        Job.state,
        Job.submitted_by,
        Job.open_parents,
        Job.not_before,
        Job.attempts,
    )
    .where(Job.id.in_(_IDS))
    .order_by(Job.id)
    .with_for_update()
)
_TAKEN = select(Attempt.worker_id, Attempt.slots).where(
    Attempt.worker_id.in_(_IDS), Attempt.state.in_(LIVE)
)
_ATTEMPTS = insert(Attempt)


def offer(tx: Transaction, decided: Sequence[Priced], patience: Patience) -> list[Offered]:
    """Offer jobs to workers; left out is what has changed since it was decided."""
    workers = sorted({wanted.worker_id for wanted in decided})
    open_workers = set(tx.session.scalars(_WORKERS, {"ids": workers}))
    ids = sorted({wanted.placement.job_id for wanted in decided})
    jobs: dict[str, Any] = {row.id: row for row in tx.session.execute(_JOBS, {"ids": ids})}
    taken: dict[str, set[int]] = defaultdict(set)
    for worker_id, slots in tx.session.execute(_TAKEN, {"ids": workers}):
        taken[worker_id] |= set(slots)
    made: list[tuple[Priced, Row[Any]]] = []
    for wanted in decided:
        job = jobs.get(wanted.placement.job_id)
        free = taken[wanted.worker_id].isdisjoint(wanted.slots)
        if job is not None and free and wanted.worker_id in open_workers and _may_start(job, tx):
            taken[wanted.worker_id] |= set(wanted.slots)
            made.append((wanted, jobs.pop(job.id)))
    return list(_write(tx, made, patience))


def preempt(tx: Transaction, victim_id: str, for_job: str) -> Attempt | None:
    """Tell a running job to yield; none when it is over, or stops anyway."""
    job = tx.session.get(Job, victim_id, with_for_update=True)
    attempt = tx.session.scalar(
        select(Attempt)
        .where(Attempt.job_id == victim_id, Attempt.state.in_(LIVE))
        .with_for_update()
    )
    if job is None or attempt is None or attempt.stop is not None:
        return None
    job.preemptions += 1
    tx.audit(SCHEDULER, "attempt.preempted_for", attempt.id, job=job.id, by=for_job)
    if attempt.state not in LEASED:
        end_attempt(tx, attempt, job, Outcome.EXPIRED, actor=SCHEDULER)
        return attempt
    attempt.stop = "preempt"
    job.changed_at = tx.now
    order = StopOrder(attempt_id=attempt.id, reason="preempt")
    tell(tx, attempt.worker_id, order)
    return attempt


def _may_start(job: Row[Any], tx: Transaction) -> bool:
    waits = job.not_before is not None and job.not_before > tx.now
    return job.state == JobState.QUEUED and not job.open_parents and not waits


def _write(
    tx: Transaction, made: list[tuple[Priced, Row[Any]]], patience: Patience
) -> Iterator[Offered]:
    if not made:
        return
    attempts = [_new_attempt(tx, wanted, job, patience) for wanted, job in made]
    insert_all(tx.session.connection(), _ATTEMPTS, attempts)
    queued = [Queued(job.id, job.version, job.submitted_by) for _, job in made]
    assign_jobs(tx, queued, SCHEDULER)
    for attempt, job in zip(attempts, queued, strict=True):
        message = Offer(
            attempt_id=attempt["id"],
            job_id=attempt["job_id"],
            expires_at=attempt["offer_expires_at"],
        )
        worker_id = attempt["worker_id"]
        tell(tx, worker_id, message)
        slots = tuple(attempt["slots"])
        yield Offered(attempt["id"], job.id, worker_id, slots, job.version + 1)


def _new_attempt(
    tx: Transaction, wanted: Priced, job: Row[Any], patience: Patience
) -> dict[str, Any]:
    return {
        "id": new_id("att"),
        "job_id": job.id,
        "number": job.attempts + 1,
        "epoch": job.attempts + 1,
        "state": AttemptState.OFFERED,
        "outcome": None,
        "failure": None,
        "stop": None,
        "worker_id": wanted.worker_id,
        "slots": list(wanted.slots),
        "price": wanted.price,
        "checkpoint_at": None,
        "offered_at": tx.now,
        "offer_expires_at": tx.now + timedelta(seconds=patience.offer_ttl),
        "lease_expires_at": None,
        "claimed_at": None,
        "started_at": None,
        "finished_at": None,
        "acked_seq": 0,
    }
