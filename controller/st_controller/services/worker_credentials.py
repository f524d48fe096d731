"""Credentials of workers: handed out, put into force, rotated and revoked.

A new credential is handed out over an authenticated call and is in force from its first use on;
until then the old one is. So an agent may die between any two steps and is never locked out: it
holds at least one that is in force.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, and_, select, update

from st_controller.auth import secrets
from st_controller.auth.secrets import SecretKind
from st_controller.errors import Conflict
from st_controller.services.leases import take_back
from st_controller.services.worker_events import tell
from st_controller.services.workers import get_worker
from st_controller.store.moments import Moment
from st_controller.store.schema import Worker
from st_controller.store.transaction import CREDENTIALS_OF, FLEET_LESS, QUEUE_WORKER, Transaction
from st_shared.protocol.states import WorkerDesired, WorkerState
from st_shared.protocol.worker import RotateOrder

MOST_ROTATED = 100
"""Workers of one look that are told to rotate, so that a fleet that joined together does not
rotate together."""


def issue(tx: Transaction, worker_id: str) -> str:
    """A new credential; one that was handed out before and never used is void."""
    worker = get_worker(tx.session, worker_id, lock=True)
    fresh = secrets.new_secret(SecretKind.WORKER)
    worker.next_credential_hash = secrets.digest(fresh)
    tx.audit(f"worker:{worker_id}", "worker.credential_issued", worker_id, name=worker.name)
    return fresh


def take_into_force(tx: Transaction, digest: str) -> bool:
    """Somebody used a credential that was handed out: from now on it is the only one.

    False: it is no such credential any more, as it is in force already or void.
    """
    found = tx.session.execute(
        update(Worker)
        .where(Worker.next_credential_hash == digest, Worker.desired != WorkerDesired.RETIRED)
        .values(
            credential_hash=digest,
            next_credential_hash=None,
            credential_at=tx.now,
            rotate_ordered_at=None,
        )
        .returning(Worker.id, Worker.name)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if found is None:
        return False
    tx.audit(f"worker:{found.id}", "worker.credential_rotated", found.id, name=found.name)
    tx.wake(f"{CREDENTIALS_OF}{found.id}")
    return True


def rotate(tx: Transaction, actor: str, worker_id: str) -> Worker:
    """Order a worker to fetch a new credential; until it does, each heartbeat reminds it.

    Raises:
        Conflict: its credential is void.
    """
    worker = get_worker(tx.session, worker_id, lock=True)
    must_be_in_force(worker)
    _order(tx, actor, worker)
    return worker


def old_credential(before: Moment) -> ColumnElement[bool]:
    """Workers of which the credential came into force before that and is to be replaced."""
    return and_(
        Worker.observed == WorkerState.ONLINE,
        Worker.desired != WorkerDesired.RETIRED,
        Worker.rotate_ordered_at.is_(None),
        Worker.credential_at <= before,
    )


def rotate_old(tx: Transaction, before: datetime) -> int:
    """Order those to rotate whose credential is older than ``before``; how many."""
    old = tx.session.scalars(
        select(Worker)
        .where(old_credential(before))
        .order_by(Worker.credential_at)
        .limit(MOST_ROTATED)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    for worker in old:
        _order(tx, "system", worker)
    return len(old)


def _order(tx: Transaction, actor: str, worker: Worker) -> None:
    worker.rotate_ordered_at = tx.now
    tell(tx, worker.id, RotateOrder(ordered_at=tx.now))
    tx.audit(actor, "worker.rotate", worker.id, name=worker.name)


def revoke(tx: Transaction, actor: str, worker_id: str) -> Worker:
    """Void a worker's credential at once; what it holds is queued again.

    Its streams end on every replica, and its next call is refused, whereupon the agent ends its
    processes. The host may join again with a token, as a new worker.

    Raises:
        Conflict: it was void already.
    """
    worker = get_worker(tx.session, worker_id, lock=True)
    must_be_in_force(worker)
    worker.revoked_at = tx.now
    worker.next_credential_hash = worker.rotate_ordered_at = None
    worker.observed = WorkerState.GONE
    take_back(tx, worker.id, actor)
    tx.audit(actor, "worker.revoked", worker.id, name=worker.name)
    for topic in (f"{CREDENTIALS_OF}{worker.id}", FLEET_LESS, f"{QUEUE_WORKER}{worker.id}"):
        tx.wake(topic)
    return worker


def must_be_in_force(worker: Worker) -> None:
    """Refuse what cannot reach a worker whose credential is void.

    Raises:
        Conflict: it is.
    """
    if worker.desired == WorkerDesired.RETIRED:
        raise Conflict(
            "a retired worker cannot come back", code="retired", hint="let it join with a new token"
        )
    if worker.revoked_at is not None:
        raise Conflict(
            "the credential of this worker was revoked",
            code="revoked",
            hint="let the host join again with a new token, then delete this worker",
        )
