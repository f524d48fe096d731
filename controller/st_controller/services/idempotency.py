"""Idempotency keys: taken before anything else, so that no effect can come twice."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from st_controller.errors import Conflict
from st_controller.services.actor import Actor
from st_controller.store.bulk import insert_all
from st_controller.store.schema import IdempotencyKey
from st_controller.store.transaction import Transaction

KEPT = timedelta(hours=24)
"""How long a key counts; afterwards the same request makes something new."""
MOST_PRUNED = 1000
"""Keys that are removed at one time, so that nobody waits long for it."""

_TAKE = {
    name: dialect.insert(IdempotencyKey).on_conflict_do_nothing()
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}


def take(
    tx: Transaction, actor: Actor, key: str, body: str, result: dict[str, Any]
) -> dict[str, Any] | None:
    """Take ``key`` for what is about to be made; the earlier result when it was taken before.

    ``body`` is the request in canonical form, its address included. ``result`` holds the ids that
    the caller is going to use; the row goes when the transaction is undone. A twin that is under
    way is waited for.

    Raises:
        Conflict: the key was used with another body.
    """
    digest = hashlib.sha256(body.encode()).hexdigest()
    connection = tx.session.connection()
    row = {
        "user_id": actor.user_id,
        "key": key,
        "body_sha256": digest,
        "result": result,
        "created_at": tx.now,
    }
    if insert_all(connection, _TAKE[connection.dialect.name], [row]):
        return None
    earlier = tx.session.execute(
        select(IdempotencyKey.body_sha256, IdempotencyKey.result).where(
            IdempotencyKey.user_id == actor.user_id, IdempotencyKey.key == key
        )
    ).one_or_none()
    if earlier is None:  # it grew too old at this very moment
        return take(tx, actor, key, body, result)
    if earlier.body_sha256 != digest:
        raise Conflict(
            "this Idempotency-Key was used with another body",
            code="idempotency_mismatch",
            hint="use a new key for a new job",
        )
    return earlier.result or {}


def prune(tx: Transaction, before: datetime) -> int:
    """Remove the oldest keys that were taken before then; how many."""
    key = tuple_(IdempotencyKey.user_id, IdempotencyKey.key)
    oldest = (
        select(IdempotencyKey.user_id, IdempotencyKey.key)
        .where(IdempotencyKey.created_at < before)
        .order_by(IdempotencyKey.created_at)
        .limit(MOST_PRUNED)
    )
    removed = tx.session.execute(
        delete(IdempotencyKey).where(key.in_(oldest)),
        execution_options={"synchronize_session": False},
    )
    return int(removed.rowcount)  # type: ignore[attr-defined]
