"""Decisions of the scheduler made durable: offers, and orders to yield."""

from datetime import timedelta

from sqlalchemy import select

from st_controller.domain.attempts import LEASED, LIVE
from st_controller.domain.scheduling.model import Placement
from st_controller.domain.workers import Patience
from st_controller.services import topics
from st_controller.services.endings import end_attempt
from st_controller.services.moves import move_job
from st_controller.services.workers import live_attempts
from st_controller.store.schema import Attempt, Job, Worker
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState, JobState, Outcome, WorkerDesired, WorkerState
from st_shared.protocol.worker import Offer, StopOrder

SCHEDULER = "scheduler"
"""Who acts, in the audit log."""


def offer(
    tx: Transaction, placement: Placement, price: float, patience: Patience
) -> Attempt | None:
    """Offer a job to a worker; none when either changed since the decision was made."""
    (grant,) = placement.grants
    worker = tx.session.get(Worker, grant.worker, with_for_update=True)
    job = tx.session.get(Job, placement.job_id, with_for_update=True)
    if job is None or worker is None or not _may_start(job, tx):
        return None
    if worker.observed != WorkerState.ONLINE or worker.desired != WorkerDesired.ACTIVE:
        return None
    held = live_attempts(tx.session, [worker.id])[worker.id]
    if {slot for attempt in held for slot in attempt.slots} & set(grant.slots):
        return None
    attempt = _new_attempt(tx, job, patience, worker.id, grant.slots, price)
    tx.session.add(attempt)
    tx.session.flush()
    move_job(tx, job, JobState.ASSIGNED, SCHEDULER)
    message = Offer(attempt_id=attempt.id, job_id=job.id, expires_at=attempt.offer_expires_at)
    tx.emit(topics.worker(worker.id), "offer", message.model_dump(mode="json"))
    return attempt


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
    tx.emit(topics.worker(attempt.worker_id), "stop", order.model_dump(mode="json"))
    return attempt


def _may_start(job: Job, tx: Transaction) -> bool:
    waits = job.not_before is not None and job.not_before > tx.now
    return job.state == JobState.QUEUED and not job.open_parents and not waits


def _new_attempt(
    tx: Transaction,
    job: Job,
    patience: Patience,
    worker_id: str,
    slots: tuple[int, ...],
    price: float,
) -> Attempt:
    job.attempts += 1
    job.progress = None
    return Attempt(
        id=new_id("att"),
        job_id=job.id,
        number=job.attempts,
        epoch=job.attempts,
        state=AttemptState.OFFERED,
        outcome=None,
        failure=None,
        stop=None,
        worker_id=worker_id,
        slots=list(slots),
        price=price,
        checkpoint_at=None,
        offered_at=tx.now,
        offer_expires_at=tx.now + timedelta(seconds=patience.offer_ttl),
        lease_expires_at=None,
        claimed_at=None,
        started_at=None,
        finished_at=None,
        acked_seq=0,
    )
