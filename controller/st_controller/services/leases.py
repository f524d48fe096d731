"""Leases: claimed, proven, and lost when nobody renews them (``renewals.py``)."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    bindparam,
    select,
    tuple_,
)
from sqlalchemy.orm import Session, aliased, defer

from st_controller.domain import use
from st_controller.domain.attempts import LEASED, LIVE, is_known, may_move
from st_controller.domain.workers import Patience
from st_controller.errors import Conflict, StaleLease
from st_controller.services import gangs, topics
from st_controller.services.endings import end_attempt, use_told
from st_controller.services.moves import move_job
from st_controller.store import direct
from st_controller.store.moments import Moment
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import AttemptState, JobState, Outcome
from st_shared.protocol.worker import Lease

# Made once: building a statement costs more than running it. PostgreSQL locks the rows of each
# table in the order of FROM. With a member of a gang come all, since an end concerns all of them:
# locked later, they would stand crosswise to heartbeats, which lock attempts in the same order.
_ASKED = aliased(Attempt)
_WHICH = select(_ASKED.job_id, _ASKED.number)
_GANG = tuple_(Attempt.job_id, Attempt.number)
_LOCKED = (
    select(Job, Attempt)
    .select_from(Job)
    .join(Attempt, Attempt.job_id == Job.id)
    .with_for_update()
    .execution_options(populate_existing=True)
)
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_MANY = _LOCKED.where(_GANG.in_(_WHICH.where(_ASKED.id.in_(_IDS)))).order_by(Job.id, Attempt.id)
# Documents are read where they are needed, and whoever claims needs them.
_LATER = [defer(each) for each in (Job.spec, Job.dataset_pins, Job.wants, Job.progress)]
_LEASES = _MANY.options(*_LATER)

UPLOADING = Reason(
    code="uploading",
    message="It has ended on its worker; what it made is on its way to the object store.",
)
"""What a job says from the end of its program until all is stored."""

Found = tuple[Attempt | None, Job | None]
"""An attempt and its job, locked; none where there is no such attempt."""


def claim(
    tx: Transaction, worker_id: str, attempt_id: str, patience: Patience
) -> tuple[Attempt, Job]:
    """Give the lease of an offered attempt to the worker that it was offered to.

    A worker whose answer was lost, or whose signed URLs ran out before its program was started, may
    ask again and gets the same lease.

    Raises:
        StaleLease: the offer is over, or was made to another worker.
    """
    attempt, job = _claimable(tx, _load(tx.session, attempt_id, _MANY), worker_id)
    if attempt.state == AttemptState.OFFERED:
        _give(tx, [(attempt, job)], patience)
    return attempt, job


def claim_all(
    tx: Transaction,
    wanted: Sequence[tuple[str, str]],
    patience: Patience,
    others: Iterable[str] = (),
) -> list[tuple[Attempt, Job] | StaleLease]:
    """The same for many pairs of worker and attempt: for each what the worker has, or why not.

    ``others`` are attempts that this transaction may end later; they are locked in the same go.
    """
    ids = {attempt_id for _, attempt_id in wanted}
    found = load_all(tx.session, ids.union(others), _MANY)
    answers: list[tuple[Attempt, Job] | StaleLease] = []
    offered: dict[str, tuple[Attempt, Job]] = {}
    for worker_id, attempt_id in wanted:
        try:
            pair = _claimable(tx, found.get(attempt_id, (None, None)), worker_id)
        except StaleLease as error:
            answers.append(error)
            continue
        answers.append(pair)
        if pair[0].state == AttemptState.OFFERED:
            offered[attempt_id] = pair
    _give(tx, list(offered.values()), patience)
    return answers


def held(tx: Transaction, worker_id: str, attempt_id: str, epoch: int) -> tuple[Attempt, Job]:
    """The attempt and job of a lease in force, or ``StaleLease``."""
    attempt, job = _load(tx.session, attempt_id)
    return in_force(attempt, job, worker_id, epoch)


def seen(session: Session, worker_id: str, attempt_id: str, epoch: int) -> None:
    """Refuse at once what a lease that is not in force asks for; whoever writes asks ``held``.

    Raises:
        StaleLease: it is not.
    """
    attempt = session.get(Attempt, attempt_id)
    if attempt is None or not is_force(attempt, worker_id, epoch):
        raise _void()


def finishable(
    found: Found, worker_id: str, epoch: int, outcome: Outcome
) -> tuple[Attempt, Job] | None:
    """The attempt and job, locked, of a lease that is to end so, or ``StaleLease``.

    None: this very call has been made before, and its answer was lost.
    """
    attempt, job = found
    if attempt is not None and attempt.state == AttemptState.FINISHED:
        outcomes = {outcome}
        if attempt.nodes > 1 and outcome is Outcome.FAILED:
            outcomes.add(Outcome.PREEMPTED)  # it had only missed another, which was excused
        ended = (attempt.worker_id, attempt.epoch)
        if ended == (worker_id, epoch) and attempt.outcome in outcomes:
            return None
    return in_force(attempt, job, worker_id, epoch)


def job_ids_of(session: Session, attempt_ids: Iterable[str]) -> list[str]:
    """The jobs of attempts, not locked."""
    query = select(Attempt.job_id).where(Attempt.id.in_(sorted(set(attempt_ids))))
    return list(session.scalars(query))


def load_all(
    session: Session, attempt_ids: Iterable[str], query: Select[Job, Attempt] = _LEASES
) -> dict[str, Found]:
    """Lock attempts with their jobs, the lower id of a job first; unknown ones are left out.

    All members of their gangs come, too.
    """
    rows = session.execute(query, {"ids": sorted(set(attempt_ids))})
    return {attempt.id: (attempt, job) for job, attempt in rows}


def advance(
    tx: Transaction,
    attempt: Attempt,
    job: Job,
    reported: AttemptState,
    used_seconds: float | None = None,
) -> None:
    """Take the state that the worker reports; what is already known changes nothing.

    ``used_seconds`` is how long it had its slots, where its program has ended.
    """
    known = AttemptState(attempt.state)
    if is_known(reported, known):
        return
    if not may_move(known, reported):
        raise Conflict(f"an attempt that is {known} cannot become {reported}")
    moved: dict[str, object] = {"state": reported}
    if reported in {AttemptState.RUNNING, AttemptState.UPLOADING}:
        moved["started_at"] = attempt.started_at or tx.now
    only_uploads = reported == AttemptState.UPLOADING and attempt.nodes == 1
    if reported == AttemptState.UPLOADING:
        moved["used_seconds"] = used = use_told(attempt, used_seconds, tx.now)
        if only_uploads:
            moved["released_at"] = use.after(attempt.claimed_at, used, tx.now)
    direct.write(tx.session, attempt, moved)
    if "started_at" in moved and job.state == JobState.ASSIGNED and attempt.node == 0:
        move_job(tx, job, JobState.RUNNING, f"worker:{attempt.worker_id}")
    if only_uploads:
        _free_slots(tx, job)


def _free_slots(tx: Transaction, job: Job) -> None:
    """The job says that it only uploads, and the scheduler gives its slots to others."""
    told = {"reason": UPLOADING.model_dump(mode="json"), "changed_at": tx.now}
    direct.write(tx.session, job, told)
    topics.wake_queue(tx, [job.id])
    tx.wake(topics.job(job.id))


def overdue(now: Moment) -> ColumnElement[bool]:
    """Offers that nobody claimed and leases that nobody renewed by then."""
    return ((Attempt.state == AttemptState.OFFERED) & (Attempt.offer_expires_at <= now)) | (
        Attempt.state.in_(LEASED) & (Attempt.lease_expires_at <= now)
    )


def sweep(tx: Transaction, limit: int = 100) -> int:
    """End offers that nobody claimed and leases that nobody renewed; how many.

    What somebody else is changing just now is left to the next sweep, so nothing is waited for.
    """
    found = tx.session.scalars(
        select(Attempt).where(overdue(tx.now)).limit(limit).with_for_update(skip_locked=True)
    ).all()
    ended = 0
    for attempt in found:
        job = tx.session.scalar(
            select(Job).where(Job.id == attempt.job_id).with_for_update(skip_locked=True)
        )
        # Else it went with another of its gang, or one of that is renewed just now.
        if job is not None and attempt.state in LIVE and gangs.are_free(tx.session, attempt):
            offered = attempt.state == AttemptState.OFFERED
            end_attempt(tx, attempt, job, Outcome.EXPIRED if offered else Outcome.LOST)
            ended += 1
    return ended


def extend_all(tx: Transaction, until: datetime) -> None:
    """Give every lease until ``until``: nobody could renew while no controller was listening."""
    for attempt in tx.session.scalars(
        select(Attempt)
        .where(Attempt.state.in_(LEASED))
        .order_by(Attempt.job_id, Attempt.id)
        .with_for_update()
    ):
        if attempt.lease_expires_at is None or attempt.lease_expires_at < until:
            attempt.lease_expires_at = until


def bound_all(tx: Transaction, patience: Patience) -> None:
    """Let no offer and no lease last for longer from now than a new one.

    They do where the clock was set back, and whoever has died would be waited for as long.
    """
    offer = tx.now + timedelta(seconds=patience.offer_ttl)
    lease = tx.now + timedelta(seconds=patience.lease_ttl)
    for attempt in tx.session.scalars(
        select(Attempt)
        .where(
            ((Attempt.state == AttemptState.OFFERED) & (Attempt.offer_expires_at > offer))
            | (Attempt.state.in_(LEASED) & (Attempt.lease_expires_at > lease))
        )
        .order_by(Attempt.job_id, Attempt.id)
        .with_for_update()
    ):
        attempt.offer_expires_at = min(attempt.offer_expires_at, offer)
        if attempt.lease_expires_at is not None:
            attempt.lease_expires_at = min(attempt.lease_expires_at, lease)


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


def take_back(
    tx: Transaction, worker_id: str, actor: str, *, states: Iterable[AttemptState] = LIVE
) -> None:
    """Queue again what a worker holds in these states; no job is to blame."""
    held_by_it = select(Attempt.id).where(Attempt.worker_id == worker_id, Attempt.state.in_(states))
    for attempt, job in _live(tx.session, held_by_it):
        offered = attempt.state == AttemptState.OFFERED
        outcome = Outcome.EXPIRED if offered else Outcome.PREEMPTED
        end_attempt(tx, attempt, job, outcome, actor=actor)


def _live(session: Session, wanted: Select[str]) -> Iterator[tuple[Attempt, Job]]:
    """The attempts of these ids that are still live, each locked with its job."""
    for attempt_id in session.scalars(wanted.order_by(Attempt.job_id, Attempt.id)).all():
        attempt, job = _load(session, attempt_id)
        if attempt is not None and job is not None and attempt.state in LIVE:
            yield attempt, job


_CLAIMED = (AttemptState.CLAIMED, AttemptState.PREPARING)
"""Whoever lost the answer to its claim asks again, and so does one whose signed URLs ran out."""


def _claimable(tx: Transaction, found: Found, worker_id: str) -> tuple[Attempt, Job]:
    """What is offered to this worker, or what it has claimed before and does not run yet."""
    attempt, job = found
    if attempt is None or job is None or attempt.worker_id != worker_id:
        raise StaleLease("this offer is not yours, or is over", code="offer_gone")
    is_open = attempt.state == AttemptState.OFFERED and attempt.offer_expires_at > tx.now
    if not is_open and attempt.state not in _CLAIMED:
        raise StaleLease("this offer is over", code="offer_gone")
    return attempt, job


def _give(tx: Transaction, pairs: Sequence[tuple[Attempt, Job]], patience: Patience) -> None:
    claimed = {
        "state": AttemptState.CLAIMED,
        "claimed_at": tx.now,
        "lease_expires_at": tx.now + timedelta(seconds=patience.lease_ttl),
    }
    direct.write_all(tx.session, [attempt for attempt, _ in pairs], claimed)
    for attempt, job in pairs:
        tx.audit(f"worker:{attempt.worker_id}", "attempt.claimed", attempt.id, job=job.id)


def _load(session: Session, attempt_id: str, query: Select[Job, Attempt] = _LEASES) -> Found:
    """Lock an attempt and its job. Rows are locked as worker, job, attempt, here as everywhere."""
    return load_all(session, [attempt_id], query).get(attempt_id, (None, None))


def is_force(attempt: Any, worker_id: str, epoch: int) -> bool:
    """Whether the worker holds the lease of an attempt, in this epoch."""
    return attempt.state in LEASED and attempt.worker_id == worker_id and attempt.epoch == epoch


def in_force(
    attempt: Attempt | None, job: Job | None, worker_id: str, epoch: int
) -> tuple[Attempt, Job]:
    """The attempt and job, which are locked, if this lease of them is in force.

    Raises:
        StaleLease: it is not.
    """
    if attempt is None or job is None or not is_force(attempt, worker_id, epoch):
        raise _void()
    return attempt, job


def _void() -> StaleLease:
    return StaleLease("another attempt has taken over, or the job is over")
