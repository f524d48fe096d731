"""What operators order of workers. Orders are columns of their own, which no heartbeat touches."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Select, func, select

from st_controller.domain.attempts import LEASED
from st_controller.errors import Conflict
from st_controller.services import faulty_slots, garbage, topics
from st_controller.services.caller import WorkerCaller
from st_controller.services.leases import take_back
from st_controller.services.worker_credentials import must_be_in_force
from st_controller.services.worker_events import tell, tell_all
from st_controller.services.workers import get_worker, live_attempts
from st_controller.store.moments import Moment
from st_controller.store.schema import Attempt, Job, Worker
from st_controller.store.transaction import CREDENTIALS_OF, FLEET_LESS, QUEUE_WORKER, Transaction
from st_shared.protocol.resources import LabelChange
from st_shared.protocol.states import AttemptState, WorkerDesired, WorkerState
from st_shared.protocol.worker import DesiredChange, GarbageOrder, GarbageReport, StopOrder

VANISHED = timedelta(hours=1)
"""For so long an ephemeral worker that fell silent may come back as the same worker."""


def order(
    tx: Transaction,
    actor: str,
    worker_id: str,
    desired: WorkerDesired,
    *,
    why: str | None = None,
    grace: timedelta | None = None,
) -> Worker:
    """Say what a worker should be; retired is for good.

    ``grace`` is for a drain: after so long preemptible jobs are stopped at a checkpoint and queued
    again. Without it they are waited for, as those that are not preemptible always are.

    Raises:
        Conflict: the worker is retired, or its credential revoked.
    """
    worker = get_worker(tx.session, worker_id, lock=True)
    if desired is not WorkerDesired.RETIRED:
        must_be_in_force(worker)
    worker.desired, worker.desired_why = desired, why
    worker.desired_by, worker.desired_at = actor, tx.now
    drains = desired is WorkerDesired.DRAINING
    worker.drain_until = tx.now + grace if drains and grace is not None else None
    if desired is WorkerDesired.RETIRED:
        take_back(tx, worker.id, actor)
        faulty_slots.forget(tx, worker.id)
        tx.wake(f"{CREDENTIALS_OF}{worker.id}")
        tx.wake(FLEET_LESS)
    elif desired is WorkerDesired.ACTIVE:
        faulty_slots.forget(tx, worker.id)
    else:
        take_back(tx, worker.id, actor, states=[AttemptState.OFFERED])
    details = {"why": why} if why else {}
    tx.audit(actor, f"worker.{desired}", worker.id, name=worker.name, **details)
    tell(tx, worker.id, DesiredChange(desired=desired))
    tx.wake(f"{QUEUE_WORKER}{worker.id}")
    tx.session.flush()
    press_drains(tx, worker_id)
    return worker


def drained_late(now: Moment) -> Select[str]:
    """Ids of attempts that a drain has waited for long enough."""
    return (
        select(Attempt.id)
        .join(Worker, Worker.id == Attempt.worker_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(
            Worker.desired == WorkerDesired.DRAINING,
            Worker.drain_until <= now,
            Attempt.state.in_(LEASED),
            Attempt.stop.is_(None),
            Job.preemptible,
        )
    )


def press_drains(tx: Transaction, worker_id: str | None = None) -> int:
    """Stop the preemptible jobs of workers whose drain has waited long enough; how many.

    They come to a checkpoint and are queued again. That was no wish of the queue, so it does not
    count towards the preemptions that a job bears.
    """
    overdue = drained_late(tx.now)
    if worker_id is not None:
        overdue = overdue.where(Worker.id == worker_id)
    locked = (
        select(Job, Attempt)
        .select_from(Job)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Attempt.id.in_(overdue), Attempt.stop.is_(None), Attempt.state.in_(LEASED))
        .order_by(Job.id, Attempt.id)
        .with_for_update()
    )
    pairs = tx.session.execute(locked).all()
    for job, attempt in pairs:
        attempt.stop = "preempt"
        job.changed_at = tx.now
        tell(tx, attempt.worker_id, StopOrder(attempt_id=attempt.id, reason="preempt"))
        tx.audit("system", "attempt.preempted_for_drain", attempt.id, job=job.id)
    topics.wake_queue(tx, [job.id for job, _ in pairs])
    return len(pairs)


def label(tx: Transaction, actor: str, worker_id: str, change: LabelChange) -> Worker:
    """Set labels, and take set ones away; they win over what the worker says of itself.

    Raises:
        Conflict: a label to take away was not set here.
    """
    worker = get_worker(tx.session, worker_id, lock=True)
    if missing := [key for key in change.remove if key not in worker.set_labels]:
        raise Conflict(
            f"the label {missing[0]!r} was not set on the controller",
            code="no_such_label",
            hint="what the agent gives itself can be overridden by setting it, not removed",
        )
    kept = {key: value for key, value in worker.set_labels.items() if key not in change.remove}
    worker.set_labels = {**kept, **change.set}
    tx.audit(
        actor,
        "worker.labelled",
        worker.id,
        name=worker.name,
        set=dict(change.set),
        removed=list(change.remove),
    )
    tx.wake(FLEET_LESS)
    tx.wake(f"{QUEUE_WORKER}{worker.id}")
    return worker


def collect_garbage(tx: Transaction, actor: str, worker_id: str) -> Worker:
    """Order a worker to remove what no attempt needs; until it has, each heartbeat reminds it.

    Raises:
        Conflict: its credential is void.
    """
    worker = get_worker(tx.session, worker_id, lock=True)
    must_be_in_force(worker)
    worker.garbage_ordered_at = tx.now
    tell(tx, worker.id, GarbageOrder(ordered_at=tx.now))
    tx.audit(actor, "worker.collect_garbage", worker.id, name=worker.name)
    return worker


def collect_garbage_everywhere(tx: Transaction, actor: str) -> int:
    """Order all workers that may come back to remove what no attempt needs; how many."""
    in_force = select(func.count(Worker.id)).where(
        Worker.desired != WorkerDesired.RETIRED,
        Worker.revoked_at.is_(None),
        Worker.deleted_at.is_(None),
    )
    count = tx.session.scalar(in_force) or 0
    garbage.order_of_all(tx.session, tx.now)
    tell_all(tx, GarbageOrder(ordered_at=tx.now))
    tx.audit(actor, "workers.collect_garbage", "workers", count=count)
    return count


def garbage_collected(tx: Transaction, worker_id: str, report: GarbageReport) -> None:
    """A worker has done so."""
    worker = get_worker(tx.session, worker_id, lock=True)
    worker.garbage_ordered_at, worker.garbage_collected_at = None, tx.now
    tx.audit(
        f"worker:{worker_id}",
        "worker.garbage_collected",
        worker_id,
        name=worker.name,
        removed=report.removed,
        freed_gb=report.freed_gb,
    )


@contextmanager
def one_job_at_most(tx: Transaction, caller: WorkerCaller) -> Iterator[list[str]]:
    """Around a claim: a worker that takes one job is offered nothing more once it has that.

    Given are the attempts that may be taken back afterwards: whoever claims locks them in the same
    go, or their jobs would be locked after others of a higher id.
    """
    worker = get_worker(tx.session, caller.worker_id, lock=True) if caller.one_job else None
    if worker is None or not worker.one_job or worker.desired != WorkerDesired.ACTIVE:
        yield []
        return
    yield [held.id for held in live_attempts(tx.session, [worker.id])[worker.id]]
    tx.session.flush()
    if any(held.state in LEASED for held in live_attempts(tx.session, [worker.id])[worker.id]):
        order(tx, f"worker:{worker.id}", worker.id, WorkerDesired.DRAINING, why="takes one job")


def retire_vanished(tx: Transaction, most: int = 100) -> int:
    """Retire ephemeral workers that have been gone for ``VANISHED``; how many.

    Whoever ended their hosts did not let them sign off, and another that takes their place joins
    anew: their credentials are void from now on, and faults of their slots are nobody's business.
    A worker that is not ephemeral may come back with the same accelerators.
    """
    vanished = tx.session.scalars(
        select(Worker)
        .where(
            Worker.ephemeral,
            Worker.observed == WorkerState.GONE,
            Worker.desired != WorkerDesired.RETIRED,
            func.coalesce(Worker.last_heartbeat_at, Worker.joined_at) <= tx.now - VANISHED,
        )
        .order_by(Worker.id)
        .limit(most)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    for worker in vanished:
        order(tx, "system", worker.id, WorkerDesired.RETIRED, why="vanished")
    return len(vanished)


def drain_as_wished(tx: Transaction, worker_id: str, grace: timedelta | None) -> None:
    """Drain a worker as somebody on its host wishes; an operator's deadline gets no later by that.

    Raises:
        Conflict: its credential is void.
    """
    worker = get_worker(tx.session, worker_id, lock=True)
    until = worker.drain_until if worker.desired == WorkerDesired.DRAINING else None
    if until is not None:
        left = max(until - tx.now, timedelta())
        grace = left if grace is None else min(left, grace)
    order(
        tx,
        f"worker:{worker_id}",
        worker_id,
        WorkerDesired.DRAINING,
        why="asked for on its host",
        grace=grace,
    )


def leave(tx: Transaction, worker_id: str) -> None:
    """A worker signs off for good: it is no longer live, nor counted as lost."""
    actor = f"worker:{worker_id}"
    worker = order(tx, actor, worker_id, WorkerDesired.RETIRED, why="left by itself")
    worker.observed = WorkerState.GONE


def delete(tx: Transaction, actor: str, worker_id: str, *, force: bool) -> None:
    """Forget a worker; the history of its attempts is kept.

    Raises:
        Conflict: it holds attempts, and ``force`` is not given.
    """
    worker = get_worker(tx.session, worker_id, lock=True)
    held = live_attempts(tx.session, [worker_id])[worker_id]
    if held and not force:
        raise Conflict(
            f"{worker.name} holds {len(held)} attempts, of {', '.join(_jobs_of(held))}",
            code="worker_busy",
            hint="drain it first, or delete it by force: then its jobs are queued again",
        )
    if worker.desired != WorkerDesired.RETIRED:
        order(tx, actor, worker_id, WorkerDesired.RETIRED, why="deleted")
    worker.observed = WorkerState.GONE
    worker.deleted_at = tx.now
    tx.audit(actor, "worker.deleted", worker.id, name=worker.name, forced=bool(held))


def _jobs_of(attempts: list[Attempt], most: int = 5) -> list[str]:
    ids = [attempt.job_id for attempt in attempts]
    return [*ids[:most], *(["..."] if len(ids) > most else [])]
