"""Decisions of the scheduler made durable: offers, and orders to yield."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Row, bindparam, insert, select

from st_controller.domain.attempts import HOLDING, LEASED, LIVE
from st_controller.domain.scheduling.model import Grant, Placement
from st_controller.domain.workers import Patience
from st_controller.services import gangs
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
    rates: tuple[int, ...] = ()
    """Micro-units that an hour of the slots of each grant costs; empty: nothing."""

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Workers and their slots, the leader's first; several make a gang."""
        return self.placement.grants


class Offered(NamedTuple):
    """An attempt that was offered; of a gang, its leader's part."""

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
        Worker.revoked_at.is_(None),
    )
    .order_by(Worker.id)
    .with_for_update(key_share=True)
)
_JOBS = (
    select(
        Job.id,
        Job.version,
        Job.state,
        Job.submitted_by,
        Job.org,
        Job.team,
        Job.open_parents,
        Job.not_before,
        Job.attempts,
    )
    .where(Job.id.in_(_IDS))
    .order_by(Job.id)
    .with_for_update()
)
_YIELDING = (
    select(Attempt.id)
    .join(Job, (Job.id == Attempt.job_id) & (Job.attempts == Attempt.number))
    .where(Job.id.in_(_IDS))
    .order_by(Attempt.job_id, Attempt.id)
    .with_for_update(of=Attempt)
)
_TAKEN = select(Attempt.worker_id, Attempt.slots).where(
    Attempt.worker_id.in_(_IDS), Attempt.state.in_(HOLDING)
)
_ATTEMPTS = insert(Attempt)


def lock(tx: Transaction, decided: Sequence[Placement], victims: Iterable[str]) -> None:
    """Lock all that decisions of both kinds touch, as everywhere: workers, jobs, then attempts.

    One by one, orders to yield would hold attempts while offers wait for the worker of a heartbeat,
    which waits for those attempts.
    """
    yielding = sorted(set(victims))
    workers = sorted({grant.worker for wanted in decided for grant in wanted.grants})
    tx.session.execute(_WORKERS, {"ids": workers}).all()
    ids = sorted({*yielding, *(wanted.job_id for wanted in decided)})
    tx.session.execute(_JOBS, {"ids": ids}).all()
    tx.session.execute(_YIELDING, {"ids": yielding}).all()


def offer(tx: Transaction, decided: Sequence[Priced], patience: Patience) -> list[Offered]:
    """Offer jobs to workers; left out is what has changed since it was decided."""
    workers = sorted({grant.worker for wanted in decided for grant in wanted.grants})
    open_workers = set(tx.session.scalars(_WORKERS, {"ids": workers}))
    ids = sorted({wanted.placement.job_id for wanted in decided})
    jobs: dict[str, Any] = {row.id: row for row in tx.session.execute(_JOBS, {"ids": ids})}
    taken: dict[str, set[int]] = defaultdict(set)
    for worker_id, slots in tx.session.execute(_TAKEN, {"ids": workers}):
        taken[worker_id] |= set(slots)
    made: list[tuple[Priced, Row[Any]]] = []
    for wanted in decided:
        job = jobs.get(wanted.placement.job_id)
        are_free = all(
            grant.worker in open_workers and taken[grant.worker].isdisjoint(grant.slots)
            for grant in wanted.grants
        )
        if job is not None and are_free and _may_start(job, tx):
            for grant in wanted.grants:
                taken[grant.worker] |= set(grant.slots)
            made.append((wanted, jobs.pop(job.id)))
    return list(_write(tx, made, patience))


def preempt(tx: Transaction, victim_id: str, for_job: str) -> Attempt | None:
    """Tell a running job to yield; none when it is over, or stops anyway."""
    job = tx.session.get(Job, victim_id, with_for_update=True)
    if job is None:
        return None
    newest = gangs.of_job(tx.session, job.id, job.attempts)
    live = [attempt for attempt in newest if attempt.state in LIVE]
    if not live or any(attempt.stop is not None for attempt in live):
        return None
    job.preemptions += 1
    tx.audit(SCHEDULER, "attempt.preempted_for", live[0].id, job=job.id, by=for_job)
    for attempt in live:
        if attempt.state not in LEASED:  # of a gang that has not begun: all are withdrawn
            end_attempt(tx, attempt, job, Outcome.EXPIRED, actor=SCHEDULER)
            return attempt
    job.changed_at = tx.now
    for attempt in live:
        attempt.stop = "preempt"
        tell(tx, attempt.worker_id, StopOrder(attempt_id=attempt.id, reason="preempt"))
    return live[0]


def _may_start(job: Row[Any], tx: Transaction) -> bool:
    waits = job.not_before is not None and job.not_before > tx.now
    return job.state == JobState.QUEUED and not job.open_parents and not waits


def _write(
    tx: Transaction, made: list[tuple[Priced, Row[Any]]], patience: Patience
) -> Iterator[Offered]:
    if not made:
        return
    attempts = [_new_attempts(tx, wanted, job, patience) for wanted, job in made]
    insert_all(tx.session.connection(), _ATTEMPTS, [each for gang in attempts for each in gang])
    queued = [Queued(job.id, job.version, job.submitted_by, job.org, job.team) for _, job in made]
    assign_jobs(tx, queued, SCHEDULER)
    for gang, job in zip(attempts, queued, strict=True):
        for attempt in gang:
            message = Offer(
                attempt_id=attempt["id"],
                job_id=attempt["job_id"],
                expires_at=attempt["offer_expires_at"],
            )
            tell(tx, attempt["worker_id"], message)
        leader = gang[0]
        slots = tuple(leader["slots"])
        yield Offered(leader["id"], job.id, leader["worker_id"], slots, job.version + 1)


def _new_attempts(
    tx: Transaction, wanted: Priced, job: Row[Any], patience: Patience
) -> list[dict[str, Any]]:
    """One row a member."""
    nodes = len(wanted.grants)
    rates = wanted.rates or (0,) * nodes
    return [
        _new_attempt(tx, wanted, job, patience)
        | {"node": node, "nodes": nodes, "worker_id": grant.worker, "slots": list(grant.slots)}
        | {"rate": rate}
        for node, (grant, rate) in enumerate(zip(wanted.grants, rates, strict=True))
    ]


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
        "unstored": None,
        "stop": None,
        "price": wanted.price,
        "checkpoint_at": None,
        "offered_at": tx.now,
        "offer_expires_at": tx.now + timedelta(seconds=patience.offer_ttl),
        "lease_expires_at": None,
        "claimed_at": None,
        "started_at": None,
        "finished_at": None,
        "released_at": None,
        "acked_seq": 0,
        "stored_seq": 0,
        "met_at": None,
        "rendezvous": None,
        "booked_until": None,
        "booked": False,
        "used_seconds": 0.0,
        "behind_since": None,
        "counted": False,
    }
