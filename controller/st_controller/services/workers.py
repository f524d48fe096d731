"""Workers: joining, heartbeats, silence. What operators order is in ``worker_orders``."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, literal, select, tuple_
from sqlalchemy.orm import Session

from st_controller.domain.attempts import LEASED, LIVE
from st_controller.domain.workers import Patience, observed_state
from st_controller.errors import NotFound, NotSignedIn
from st_controller.services import garbage
from st_controller.services.leases import lose_unknown, take_back
from st_controller.services.renewals import renew, stop_order
from st_controller.store.moments import Moment
from st_controller.store.schema import Attempt, JoinToken, Worker
from st_controller.store.transaction import FLEET_LESS, QUEUE_WORKER, Transaction
from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState, WorkerDesired, WorkerState
from st_shared.protocol.worker import (
    Heartbeat,
    HeartbeatReply,
    Offer,
    RegisterRequest,
    StopOrder,
    Sync,
)

MOST_SILENT = 250
"""Workers that are marked as silent in one transaction; others write between two."""
_CHANGING = {"cached", "cached_models", "condition"}
"""What of an inventory heartbeats tell anew."""


def join(
    tx: Transaction,
    token: JoinToken,
    request: RegisterRequest,
    credential_hash: str,
    join_key_hash: str | None = None,
) -> Worker:
    """Make a worker of whoever holds a join token; the token loses one use."""
    token.uses_left -= 1
    worker = Worker(
        id=new_id("wrk"),
        name=request.name,
        credential_hash=credential_hash,
        join_key_hash=join_key_hash,
        credential_at=tx.now,
        observed=WorkerState.JOINING,
        desired=WorkerDesired.ACTIVE,
        set_labels=_set_labels(token),
        joined_at=tx.now,
        last_heartbeat_at=None,
        usage=None,
        **_described(request),
    )
    tx.session.add(worker)
    tx.session.flush()
    tx.audit(f"worker:{worker.id}", "worker.joined", worker.id, name=request.name, token=token.id)
    return worker


def _set_labels(token: JoinToken) -> dict[str, str]:
    bound = {"provider": token.provider} if token.provider else {}
    return {**token.labels, **bound}


def register(
    tx: Transaction, worker: Worker, request: RegisterRequest, patience: Patience
) -> list[str]:
    """Take what a worker says of itself; the attempt ids that it must abandon come back.

    Its labels and its desired state as set here are left as they are.

    Raises:
        NotSignedIn: its credential ended while it called.
    """
    _must_be_signed_in(worker)
    described = _described(request)
    if any(getattr(worker, field) != value for field, value in described.items()):
        tx.wake(FLEET_LESS)
    for field, value in described.items():
        setattr(worker, field, value)
    worker.name = request.name
    worker.last_heartbeat_at = tx.now
    worker.observed = WorkerState.ONLINE
    orders = renew(tx, worker.id, request.holding, patience, proves_use=False)
    spared = tx.now - timedelta(seconds=patience.offer_ttl)
    lose_unknown(tx, worker.id, request.holding, spared)
    tx.wake(f"{QUEUE_WORKER}{worker.id}")
    return [order.attempt_id for order in orders if order.reason == "stale"]


def _described(request: RegisterRequest) -> dict[str, object]:
    return {
        "own_labels": dict(request.labels),
        "inventory": request.inventory.model_dump(mode="json"),
        "agent_version": request.agent_version,
        "ephemeral": request.ephemeral,
        "one_job": request.one_job,
    }


def heartbeat(
    tx: Transaction, worker: Worker, beat: Heartbeat, patience: Patience
) -> HeartbeatReply:
    """Note that a worker is alive and renew its leases; desired state is never touched.

    Raises:
        NotSignedIn: its credential ended while it called.
    """
    _must_be_signed_in(worker)
    if beat.leaving:
        withdraw_offers(tx, worker.id, worker.observed)
    observed = WorkerState.GONE if beat.leaving else WorkerState.ONLINE
    if worker.observed != observed:
        worker.observed = observed
        tx.wake(f"{QUEUE_WORKER}{worker.id}")
        if beat.leaving:
            tx.wake(FLEET_LESS)
            tx.audit(f"worker:{worker.id}", "worker.left", worker.id, name=worker.name)
    worker.last_heartbeat_at = tx.now
    if beat.usage is not None:
        worker.usage = beat.usage.model_dump(mode="json")
    told = beat.model_dump(mode="json", include=_CHANGING, exclude_none=True)
    if told:
        worker.inventory = {**worker.inventory, **told}
        tx.wake(f"{QUEUE_WORKER}{worker.id}")
    orders = renew(tx, worker.id, beat.holding, patience)
    return HeartbeatReply(
        desired=WorkerDesired(worker.desired),
        stops=orders,
        rotate=worker.rotate_ordered_at is not None,
        collect_garbage=garbage.is_due(tx.session, worker),
        offers=_open_offers(tx.session, worker.id) if beat.deaf else [],
    )


def withdraw_offers(tx: Transaction, worker_id: str, observed: str) -> None:
    """Take back at once what a worker is offered that says that it leaves: it takes up nothing."""
    if observed != WorkerState.GONE:
        take_back(tx, worker_id, f"worker:{worker_id}", states=[AttemptState.OFFERED])


def _must_be_signed_in(worker: Worker) -> None:
    """Its row is locked: whoever voids the credential has done so by now, or comes after."""
    if worker.desired == WorkerDesired.RETIRED or worker.revoked_at is not None:
        raise NotSignedIn("the credential of this worker is void", code="bad_worker_credential")


def sync(session: Session, worker: Worker) -> Sync:
    """All that counts for a worker now."""
    attempts = session.scalars(
        select(Attempt).where(Attempt.worker_id == worker.id, Attempt.state.in_(LIVE))
    ).all()
    offers = [_offer(attempt) for attempt in attempts if attempt.state == AttemptState.OFFERED]
    stops: list[StopOrder] = [
        stop_order(attempt) for attempt in attempts if attempt.state in LEASED and attempt.stop
    ]
    return Sync(
        desired=WorkerDesired(worker.desired),
        offers=offers,
        stops=stops,
        rotate=worker.rotate_ordered_at is not None,
        collect_garbage=garbage.is_due(session, worker),
    )


def _open_offers(session: Session, worker_id: str) -> list[Offer]:
    found = session.scalars(
        select(Attempt).where(Attempt.worker_id == worker_id, Attempt.state == AttemptState.OFFERED)
    )
    return [_offer(attempt) for attempt in found]


def _offer(attempt: Attempt) -> Offer:
    return Offer(attempt_id=attempt.id, job_id=attempt.job_id, expires_at=attempt.offer_expires_at)


def get_worker(session: Session, worker_id: str, *, lock: bool = False) -> Worker:
    """A worker by its id, or ``NotFound``.

    Here as everywhere its lock lets others refer to it: who ends an attempt may note a fault of its
    worker, and must not wait for a heartbeat, which waits for that attempt.
    """
    how: dict[str, Any] | None = {"key_share": True} if lock else None
    worker = session.get(Worker, worker_id, with_for_update=how)
    if worker is None or worker.deleted_at is not None:
        raise NotFound(f"there is no worker {worker_id}")
    return worker


def list_workers(
    session: Session,
    *,
    retired: bool = False,
    name: str | None = None,
    ids: Sequence[str] = (),
    after: tuple[str, str] | None = None,
    limit: int | None = None,
) -> list[Worker]:
    """Workers that were not deleted, by name and id; those that were retired only if asked for.

    Of all, those of a name or of some ids; up to ``limit`` of them, after a name and id.
    """
    query = select(Worker).where(Worker.deleted_at.is_(None))
    if not retired:
        query = query.where(Worker.desired != WorkerDesired.RETIRED)
    if name is not None:
        query = query.where(Worker.name == name)
    if ids:
        query = query.where(Worker.id.in_(ids))
    if after is not None:
        query = query.where(tuple_(Worker.name, Worker.id) > tuple_(*map(literal, after)))
    return list(session.scalars(query.order_by(Worker.name, Worker.id).limit(limit)))


def live_attempts(session: Session, worker_ids: list[str]) -> dict[str, list[Attempt]]:
    """The attempts that hold slots of each of these workers."""
    held: dict[str, list[Attempt]] = {worker_id: [] for worker_id in worker_ids}
    for attempt in session.scalars(
        select(Attempt).where(Attempt.worker_id.in_(worker_ids), Attempt.state.in_(LIVE))
    ):
        held[attempt.worker_id].append(attempt)
    return held


def fallen_silent(silent: Moment, gone: Moment) -> ColumnElement[bool]:
    """Workers that are to be marked, as they were last heard before these moments."""
    heard = Worker.last_heartbeat_at
    return ((Worker.observed == WorkerState.ONLINE) & (heard <= silent)) | (
        (Worker.observed == WorkerState.SILENT) & (heard <= gone)
    )


def limits_of_silence(now: datetime, patience: Patience) -> tuple[datetime, datetime]:
    """Whoever was last heard before the first is silent, before the second gone."""
    silent, gone = patience.silent_after, patience.lease_ttl
    return now - timedelta(seconds=silent), now - timedelta(seconds=gone)


def watch_silence(tx: Transaction, patience: Patience) -> int:
    """Mark workers that have fallen silent, up to ``MOST_SILENT`` of them; how many."""
    marked = 0
    for worker in tx.session.scalars(
        select(Worker)
        .where(fallen_silent(*limits_of_silence(tx.now, patience)))
        .limit(MOST_SILENT)
        # A worker whose row is locked is being heard just now.
        .with_for_update(skip_locked=True, key_share=True)
    ):
        state = observed_state(worker.last_heartbeat_at or worker.joined_at, tx.now, patience)
        if worker.observed != state:
            worker.observed = state
            tx.wake(f"{QUEUE_WORKER}{worker.id}")
            if state is WorkerState.GONE:
                tx.wake(FLEET_LESS)
            tx.audit("system", f"worker.{state}", worker.id, name=worker.name)
            marked += 1
    return marked


def forgive(tx: Transaction) -> None:
    """Count the silence of workers from now: nobody listened before."""
    for worker in tx.session.scalars(
        select(Worker)
        .where(Worker.observed.in_([WorkerState.ONLINE, WorkerState.SILENT]))
        .order_by(Worker.id)
        .with_for_update(key_share=True)
    ):
        worker.last_heartbeat_at = tx.now
