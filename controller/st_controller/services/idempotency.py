"""Idempotency keys: taken before anything else, so that no effect can come twice."""

import hashlib
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from st_controller.errors import Conflict
from st_controller.services.actor import Actor
from st_controller.store.bulk import insert_all
from st_controller.store.schema import IdempotencyKey
from st_controller.store.transaction import Transaction

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
    ).one()
    if earlier.body_sha256 != digest:
        raise Conflict(
            "this Idempotency-Key was used with another body",
            code="idempotency_mismatch",
            hint="use a new key for a new job",
        )
    return earlier.result or {}
