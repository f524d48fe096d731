"""The outbox: one global order for all events, and replay from any place in it."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import BigInteger, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.store.places import RowOfEvent, after_crash
from st_controller.store.schema import EventOrder, OutboxEvent
from st_controller.store.transaction import Transaction
from st_shared.protocol import sse

BATCH = 500

# Made once: building a statement costs more than running it.
_UNPLACED = OutboxEvent.position.is_(None)
_ANY_UNPLACED = select(OutboxEvent.id).where(_UNPLACED).limit(1)
_LOCK_ORDER = select(EventOrder.last_position).where(EventOrder.id == 1).with_for_update()
_SAVE_ORDER = update(EventOrder).where(EventOrder.id == 1).values(last_position=bindparam("last"))
_NEXT = (
    select(OutboxEvent.id, func.row_number().over(order_by=OutboxEvent.id).label("turn"))
    .where(_UNPLACED)
    .order_by(OutboxEvent.id)
    .limit(BATCH)
    .subquery()
)
_PLACE = (
    update(OutboxEvent)
    .where(OutboxEvent.id == _NEXT.c.id)
    .values(position=bindparam("last", type_=BigInteger) + _NEXT.c.turn)
    .returning(OutboxEvent.position, OutboxEvent.topic, OutboxEvent.kind, OutboxEvent.body)
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True)
class PlacedEvent:
    """An event with its place in the global order."""

    position: int
    kind: str
    body: dict[str, Any]

    @cached_property
    def frame(self) -> bytes:
        """Its bytes in a stream, made once for all who are told of it."""
        return sse.encode(self.kind, json.dumps(self.body), str(self.position))


def assign_positions(tx: Transaction) -> bool:
    """Give places to committed events that have none; whether there may be more.

    Ids are given at insertion, and transactions do not commit in that order; a reader that
    followed ids could step over a late one. Places are given after the commit, by one
    transaction at a time, so whoever has seen place ``n`` has seen all before it. (Where only one
    transaction writes at a time, events have their places from the beginning: ``store/places.py``.)
    """
    if tx.session.scalar(_ANY_UNPLACED) is None:
        return False
    last = _locked_order(tx)
    # Asked again under the lock: whoever held it before may have placed them.
    placed = [
        {"position": row.position, "topic": row.topic, "kind": row.kind, "body": row.body}
        for row in tx.session.execute(_PLACE, {"last": last})
    ]
    placed.sort(key=lambda row: row["position"])
    tx.session.execute(_SAVE_ORDER, {"last": last + len(placed)})
    tx.placed += placed
    tx.topics.update(row["topic"] for row in placed)
    return len(placed) == BATCH


def _locked_order(tx: Transaction) -> int:
    """The newest place; nobody else gives any until the transaction ends."""
    last = tx.session.scalar(_LOCK_ORDER)
    if last is None:
        with suppress(IntegrityError), tx.session.begin_nested():  # another process was faster
            tx.session.execute(insert(EventOrder).values(id=1, last_position=0))
        last = tx.session.scalar(_LOCK_ORDER)
    skipped = after_crash(tx.session.connection())
    return last + skipped if last else 0


def current_position(session: Session) -> int:
    """The newest place."""
    return session.scalar(select(EventOrder.last_position)) or 0


def is_replayable(session: Session, position: int) -> bool:
    """Whether everything after ``position`` is still here."""
    newest = current_position(session)
    if position >= newest:
        return position == newest
    oldest = session.scalar(select(func.min(OutboxEvent.position)))
    return oldest is not None and position >= oldest - 1


def events_after(
    session: Session, topics: Sequence[str], position: int, limit: int = BATCH
) -> list[PlacedEvent]:
    """Events of these topics after ``position``, in order."""
    rows = session.scalars(
        select(OutboxEvent)
        .where(OutboxEvent.topic.in_(topics), OutboxEvent.position > position)
        .order_by(OutboxEvent.position)
        .limit(limit)
    )
    return [PlacedEvent(row.position or 0, row.kind, row.body) for row in rows]


def all_after(session: Session, position: int, limit: int = BATCH) -> list[RowOfEvent]:
    """Events of all topics after ``position``, in order, as they are handed on."""
    rows = session.execute(
        select(OutboxEvent.position, OutboxEvent.topic, OutboxEvent.kind, OutboxEvent.body)
        .where(OutboxEvent.position > position)
        .order_by(OutboxEvent.position)
        .limit(limit)
    )
    return [row._asdict() for row in rows]


def prune(tx: Transaction, before: datetime) -> int:
    """Remove delivered events that are older than ``before``; how many.

    From the oldest place up to the first that is younger: what stays is not looked at.
    """
    young = select(OutboxEvent.position).where(
        OutboxEvent.created_at >= before, OutboxEvent.position.is_not(None)
    )
    first_young = tx.session.scalar(young.order_by(OutboxEvent.position).limit(1))
    old = and_(OutboxEvent.created_at < before, OutboxEvent.position.is_not(None))
    if first_young is not None:
        old = OutboxEvent.position < first_young
    removed = tx.session.execute(delete(OutboxEvent).where(old))
    return int(removed.rowcount)  # type: ignore[attr-defined]
