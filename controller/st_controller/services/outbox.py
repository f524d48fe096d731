"""The outbox: one global order for all events, and replay from any place in it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.store.schema import EventOrder, OutboxEvent
from st_controller.store.transaction import Transaction

BATCH = 500


@dataclass(frozen=True)
class PlacedEvent:
    """An event with its place in the global order."""

    position: int
    kind: str
    body: dict[str, Any]


def assign_positions(tx: Transaction) -> bool:
    """Give places to committed events that have none; whether there may be more.

    Ids are given at insertion, and transactions do not commit in that order; a reader that
    followed ids could step over a late one. Places are given after the commit, by one
    transaction at a time, so whoever has seen place ``n`` has seen all before it.
    """
    unplaced = OutboxEvent.position.is_(None)
    if tx.session.scalar(select(OutboxEvent.id).where(unplaced).limit(1)) is None:
        return False
    order = _locked_order(tx)
    # Asked again under the lock: whoever held it before may have placed them.
    waiting = tx.session.scalars(
        select(OutboxEvent).where(unplaced).order_by(OutboxEvent.id).limit(BATCH)
    ).all()
    for event in waiting:
        order.last_position += 1
        event.position = order.last_position
        tx.wake(event.topic)
    return len(waiting) == BATCH


def _locked_order(tx: Transaction) -> EventOrder:
    order = tx.session.get(EventOrder, 1, with_for_update=True)
    if order is None:
        with suppress(IntegrityError), tx.session.begin_nested():  # another process was faster
            tx.session.add(EventOrder(id=1, last_position=0))
        order = tx.session.get_one(EventOrder, 1, with_for_update=True)
    return order


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


def prune(tx: Transaction, before: datetime) -> int:
    """Remove delivered events that are older than ``before``; how many."""
    removed = tx.session.execute(
        delete(OutboxEvent).where(
            OutboxEvent.created_at < before, OutboxEvent.position.is_not(None)
        )
    )
    return int(removed.rowcount)  # type: ignore[attr-defined]
