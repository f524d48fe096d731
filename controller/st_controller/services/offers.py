"""From pending jobs to offers: the scheduler's view, and its decisions made durable."""

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.scheduling.state import PendingJob, Placement, WorkerCapacity
from st_controller.domain.workers import Patience
from st_controller.services import topics
from st_controller.services.moves import move_job
from st_controller.services.workers import live_attempts
from st_controller.store.schema import Attempt, Job, Worker
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState, JobState, WorkerDesired, WorkerState
from st_shared.protocol.worker import Inventory, Offer
from st_shared.spec.job import ResourceRequest


def pending_jobs(session: Session, limit: int, offset: int = 0) -> list[PendingJob]:
    """Queued jobs in the order in which a class and then time serves them."""
    rows = session.execute(
        select(Job.id, Job.level, Job.submitted_at, Job.spec["resources"])
        .where(Job.state == JobState.QUEUED)
        .order_by(Job.level.desc(), Job.submitted_at, Job.id)
        .limit(limit)
        .offset(offset)
    )
    return [
        PendingJob(job_id, level, submitted_at, ResourceRequest.model_validate(resources))
        for job_id, level, submitted_at, resources in rows
    ]


def fleet(session: Session, *, busy_too: bool = False) -> list[WorkerCapacity]:
    """Workers that take jobs with their free slots; ``busy_too`` gives all their slots."""
    workers = session.scalars(
        select(Worker).where(
            Worker.observed == WorkerState.ONLINE, Worker.desired == WorkerDesired.ACTIVE
        )
    ).all()
    held = live_attempts(session, [worker.id for worker in workers])
    capacity = []
    for worker in workers:
        taken = {slot for attempt in held[worker.id] for slot in attempt.slots}
        slots = Inventory.model_validate(worker.inventory).slots
        free = [slot for slot in slots if busy_too or slot.index not in taken]
        capacity.append(WorkerCapacity(worker.id, free, worker.labels))
    return capacity


def offer(tx: Transaction, placement: Placement, patience: Patience) -> Attempt | None:
    """Offer a job to a worker; none when either changed since the decision was made."""
    worker = tx.session.get(Worker, placement.worker_id, with_for_update=True)
    job = tx.session.get(Job, placement.job_id, with_for_update=True)
    if job is None or worker is None or job.state != JobState.QUEUED:
        return None
    if worker.observed != WorkerState.ONLINE or worker.desired != WorkerDesired.ACTIVE:
        return None
    held = live_attempts(tx.session, [worker.id])[worker.id]
    if {slot for attempt in held for slot in attempt.slots} & set(placement.slots):
        return None
    attempt = _new_attempt(tx, job, placement, patience)
    tx.session.add(attempt)
    tx.session.flush()
    move_job(tx, job, JobState.ASSIGNED, "scheduler")
    message = Offer(attempt_id=attempt.id, job_id=job.id, expires_at=attempt.offer_expires_at)
    tx.emit(topics.worker(worker.id), "offer", message.model_dump(mode="json"))
    return attempt


def _new_attempt(tx: Transaction, job: Job, placement: Placement, patience: Patience) -> Attempt:
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
        worker_id=placement.worker_id,
        slots=list(placement.slots),
        offered_at=tx.now,
        offer_expires_at=tx.now + timedelta(seconds=patience.offer_ttl),
        lease_expires_at=None,
        claimed_at=None,
        started_at=None,
        finished_at=None,
        acked_seq=0,
    )
