"""Leases renewed by heartbeats, and what workers that hold them must stop."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Float, Text, bindparam, cast, select, update
from sqlalchemy.orm import Session

from st_controller.domain import use
from st_controller.domain.workers import Patience
from st_controller.services import leases
from st_controller.store.json_each import JsonEach
from st_controller.store.parts import parts
from st_controller.store.schema import Attempt
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import AttemptState
from st_shared.protocol.worker import Lease, StopOrder

_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
# Attempts are locked in the order of their jobs, as everywhere.
_HELD = (
    select(
        Attempt.id,
        Attempt.worker_id,
        Attempt.epoch,
        Attempt.state,
        Attempt.stop,
        Attempt.claimed_at,
        Attempt.used_seconds,
        Attempt.behind_since,
    )
    .where(Attempt.id.in_(_IDS))
    .order_by(Attempt.job_id, Attempt.id)
    .with_for_update()
)
_USES = JsonEach(bindparam("uses", type_=Text)).table_valued("key", "value", name="uses")
_RENEW = (
    update(Attempt)
    .where(Attempt.id == _USES.c.key)
    .values(
        lease_expires_at=bindparam("until"),
        used_seconds=cast(cast(_USES.c.value, Text), Float),
    )
)

_BEHIND = update(Attempt).where(Attempt.id.in_(_IDS)).values(behind_since=bindparam("since"))


def renew(
    tx: Transaction,
    worker_id: str,
    holding: Sequence[Lease],
    patience: Patience,
    *,
    proves_use: bool = True,
) -> list[StopOrder]:
    """Renew the leases that the worker names; what it must stop comes back.

    That a program runs is proven by heartbeats alone, and not by a worker that comes back.
    """
    (orders,) = renew_all(tx, [(worker_id, holding)], patience, proves_use=proves_use)
    return orders


def renew_all(
    tx: Transaction,
    holdings: Sequence[tuple[str, Sequence[Lease]]],
    patience: Patience,
    *,
    proves_use: bool = True,
) -> list[list[StopOrder]]:
    """The same for many workers: for each, in their order, what it must stop."""
    found = lock(tx.session, [holding for _, holding in holdings])
    orders: list[list[StopOrder]] = []
    renewed: dict[str, float] = {}
    turned: dict[bool, list[str]] = {True: [], False: []}
    for worker_id, holding in holdings:
        stops: list[StopOrder] = []
        for lease in holding:
            row = found.get(lease.attempt_id)
            if row is None or not leases.is_force(row, worker_id, lease.epoch):
                stops.append(StopOrder(attempt_id=lease.attempt_id, reason="stale"))
                continue
            told = lease if proves_use else lease.model_copy(update={"ended": True})
            renewed[row.id], is_behind = _proven(row, told, tx.now, patience)
            if is_behind is not (row.behind_since is not None):
                turned[is_behind].append(row.id)
            if row.stop:
                stops.append(StopOrder(attempt_id=row.id, reason=row.stop))
        orders.append(stops)
    until = tx.now + timedelta(seconds=patience.lease_ttl)
    if renewed:
        written = {"uses": json.dumps(renewed), "until": until}
        tx.session.connection().execute(_RENEW, written)
    for is_behind, ids in turned.items():
        if ids:
            since = tx.now if is_behind else None
            tx.session.connection().execute(_BEHIND, {"ids": ids, "since": since})
    return orders


def _proven(row: Any, told: Lease, now: datetime, patience: Patience) -> tuple[float, bool]:
    """Seconds for which an attempt has had its slots, as far as is proven; whether it is behind."""
    known: float = row.used_seconds
    was_behind = row.behind_since is not None
    if told.ended or row.claimed_at is None or row.state == AttemptState.UPLOADING:
        return known, was_behind
    seen, most = (now - row.claimed_at).total_seconds(), patience.lease_ttl
    behind = (now - row.behind_since).total_seconds() if was_behind else 0.0
    proof = use.proven(known, told.used_seconds, seen, most, behind)
    return proof, use.is_behind(told.used_seconds, seen, most)


def lock(session: Session, holdings: Iterable[Sequence[Lease]]) -> dict[str, Any]:
    """Lock the attempts of leases, in one order; unknown ones are left out."""
    ids = sorted({lease.attempt_id for holding in holdings for lease in holding})
    found: dict[str, Any] = {}
    for part in parts(ids):
        found |= {row.id: row for row in session.execute(_HELD, {"ids": part})}
    return found


def stop_order(attempt: Attempt) -> StopOrder:
    """The order that stands against an attempt."""
    return StopOrder.model_validate({"attempt_id": attempt.id, "reason": attempt.stop})
