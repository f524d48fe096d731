"""Leases: claimed, proven, renewed, and lost when nobody renews them."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from st_controller.domain.attempts import LEASED, LIVE, is_known, may_move
from st_controller.domain.workers import Patience
from st_controller.errors import Conflict, StaleLease
from st_controller.services.endings import end_attempt
from st_controller.services.moves import move_job
from st_controller.store import direct
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import AttemptState, JobState, Outcome
from st_shared.protocol.worker import Lease, StopOrder

# Made once: building a statement costs more than running it. PostgreSQL locks the rows of each
# table in the order of FROM.
_LEASE = (
    select(Job, Attempt)
    .select_from(Job)
    .join(Attempt, Attempt.job_id == Job.id)
    .where(Attempt.id == bindparam("attempt_id"))
    .with_for_update()
    .execution_options(populate_existing=True)
)


def claim(
    tx: Transaction, worker_id: str, attempt_id: str, patience: Patience
) -> tuple[Attempt, Job]:
    """Give the lease of an offered attempt to the worker that it was offered to.

    A worker whose answer was lost may ask again and gets the same lease.

    Raises:
        StaleLease: the offer is over, or was made to another worker.
    """
    attempt, job = _load(tx.session, attempt_id)
    if attempt is None or job is None or attempt.worker_id != worker_id:
        raise StaleLease("this offer is not yours, or is over", code="offer_gone")
    if attempt.state == AttemptState.CLAIMED:
        return attempt, job
    if attempt.state != AttemptState.OFFERED or attempt.offer_expires_at <= tx.now:
        raise StaleLease("this offer is over", code="offer_gone")
    claimed = {
        "state": AttemptState.CLAIMED,
        "claimed_at": tx.now,
        "lease_expires_at": tx.now + timedelta(seconds=patience.lease_ttl),
    }
    direct.write(tx.session, attempt, claimed)
    tx.audit(f"worker:{worker_id}", "attempt.claimed", attempt.id, job=job.id)
    return attempt, job


def held(tx: Transaction, worker_id: str, attempt_id: str, epoch: int) -> tuple[Attempt, Job]:
    """The attempt and job of a lease in force, or ``StaleLease``."""
    attempt, job = _load(tx.session, attempt_id)
    return _in_force(attempt, job, worker_id, epoch)


def to_finish(
    tx: Transaction, worker_id: str, attempt_id: str, epoch: int, outcome: Outcome
) -> tuple[Attempt, Job] | None:
    """The attempt and job of a lease that is to end so, or ``StaleLease``.

    None: this very call has been made before, and its answer was lost.
    """
    attempt, job = _load(tx.session, attempt_id)
    if attempt is not None and attempt.state == AttemptState.FINISHED:
        ended = (attempt.worker_id, attempt.epoch, attempt.outcome)
        if ended == (worker_id, epoch, outcome):
            return None
    return _in_force(attempt, job, worker_id, epoch)


def advance(tx: Transaction, attempt: Attempt, job: Job, reported: AttemptState) -> None:
    """Take the state that the worker reports; what is already known changes nothing."""
    known = AttemptState(attempt.state)
    if is_known(reported, known):
        return
    if not may_move(known, reported):
        raise Conflict(f"an attempt that is {known} cannot become {reported}")
    moved: dict[str, object] = {"state": reported}
    if reported in {AttemptState.RUNNING, AttemptState.UPLOADING}:
        moved["started_at"] = attempt.started_at or tx.now
    direct.write(tx.session, attempt, moved)
    if "started_at" in moved and job.state == JobState.ASSIGNED:
        move_job(tx, job, JobState.RUNNING, f"worker:{attempt.worker_id}")


def renew(
    tx: Transaction, worker_id: str, holding: list[Lease], patience: Patience
) -> list[StopOrder]:
    """Renew the leases that the worker names; what it must stop comes back."""
    wanted = {lease.attempt_id: lease.epoch for lease in holding}
    found = {
        attempt.id: attempt
        for attempt in tx.session.scalars(
            select(Attempt).where(Attempt.id.in_(wanted)).order_by(Attempt.id).with_for_update()
        )
    }
    orders: list[StopOrder] = []
    for attempt_id, epoch in wanted.items():
        attempt = found.get(attempt_id)
        if attempt is None or not _is_force(attempt, worker_id, epoch):
            orders.append(StopOrder(attempt_id=attempt_id, reason="stale"))
            continue
        attempt.lease_expires_at = tx.now + timedelta(seconds=patience.lease_ttl)
        if attempt.stop:
            orders.append(stop_order(attempt))
    return orders


def stop_order(attempt: Attempt) -> StopOrder:
    """The order that stands against an attempt."""
    return StopOrder.model_validate({"attempt_id": attempt.id, "reason": attempt.stop})


def sweep(tx: Transaction, limit: int = 100) -> int:
    """End offers that nobody claimed and leases that nobody renewed; how many.

    What somebody else is changing just now is left to the next sweep, so nothing is waited for.
    """
    overdue = tx.session.scalars(
        select(Attempt)
        .where(
            ((Attempt.state == AttemptState.OFFERED) & (Attempt.offer_expires_at <= tx.now))
            | (Attempt.state.in_(LEASED) & (Attempt.lease_expires_at <= tx.now))
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    ended = 0
    for attempt in overdue:
        job = tx.session.scalar(
            select(Job).where(Job.id == attempt.job_id).with_for_update(skip_locked=True)
        )
        if job is not None:
            offered = attempt.state == AttemptState.OFFERED
            end_attempt(tx, attempt, job, Outcome.EXPIRED if offered else Outcome.LOST)
            ended += 1
    return ended


def extend_all(tx: Transaction, until: datetime) -> None:
    """Give every lease until ``until``: nobody could renew while no controller was listening."""
    for attempt in tx.session.scalars(
        select(Attempt).where(Attempt.state.in_(LEASED)).with_for_update()
    ):
        if attempt.lease_expires_at is None or attempt.lease_expires_at < until:
            attempt.lease_expires_at = until


def lose_unknown(tx: Transaction, worker_id: str, holding: list[Lease], since: datetime) -> None:
    """End what the controller thinks that a worker runs, but the worker does not know of.

    Attempts claimed after ``since`` are spared: their answer may still be on its way.
    """
    unknown = select(Attempt.id).where(
        Attempt.worker_id == worker_id,
        Attempt.state.in_(LEASED),
        Attempt.claimed_at < since,
        Attempt.id.not_in({lease.attempt_id for lease in holding}),
    )
    for attempt, job in _live(tx.session, unknown):
        end_attempt(tx, attempt, job, Outcome.LOST)


def take_back(tx: Transaction, worker_id: str, actor: str) -> None:
    """Queue again what a worker holds, which an operator sends away; no job is to blame."""
    held_by_it = select(Attempt.id).where(Attempt.worker_id == worker_id, Attempt.state.in_(LIVE))
    for attempt, job in _live(tx.session, held_by_it):
        offered = attempt.state == AttemptState.OFFERED
        outcome = Outcome.EXPIRED if offered else Outcome.PREEMPTED
        end_attempt(tx, attempt, job, outcome, actor=actor)


def _live(session: Session, wanted: Select[str]) -> Iterator[tuple[Attempt, Job]]:
    """The attempts of these ids that are still live, each locked with its job."""
    for attempt_id in session.scalars(wanted.order_by(Attempt.id)).all():
        attempt, job = _load(session, attempt_id)
        if attempt is not None and job is not None and attempt.state in LIVE:
            yield attempt, job


def _load(session: Session, attempt_id: str) -> tuple[Attempt | None, Job | None]:
    """Lock an attempt and its job. Rows are locked as worker, job, attempt, here as everywhere."""
    row = session.execute(_LEASE, {"attempt_id": attempt_id}).one_or_none()
    return (row[1], row[0]) if row else (None, None)


def _is_force(attempt: Attempt, worker_id: str, epoch: int) -> bool:
    return attempt.state in LEASED and attempt.worker_id == worker_id and attempt.epoch == epoch


def _in_force(
    attempt: Attempt | None, job: Job | None, worker_id: str, epoch: int
) -> tuple[Attempt, Job]:
    if attempt is None or job is None or not _is_force(attempt, worker_id, epoch):
        raise StaleLease("another attempt has taken over, or the job is over")
    return attempt, job
