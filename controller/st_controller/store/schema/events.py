"""What was done, and what is told of it."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Index,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Sequence, Table


class AuditEntry(Table):
    """Who did what to what; written in the transaction that did it."""

    __tablename__ = "audit_entries"

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(220))
    action: Mapped[str] = mapped_column(String(80))
    target: Mapped[str] = mapped_column(String(220))
    details: Mapped[dict[str, Any]]


class OutboxEvent(Table):
    """An event to be delivered. ``position`` is given after the commit, in one global order."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    topic: Mapped[str] = mapped_column(String(80))
    kind: Mapped[str] = mapped_column(String(40))
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    position: Mapped[int | None] = mapped_column(BigInteger, unique=True)

    __table_args__ = (Index("ix_outbox_topic", "topic", "position"),)


class EventOrder(Table):
    """The counter of outbox positions; its one row is locked while positions are given."""

    __tablename__ = "event_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    last_position: Mapped[int] = mapped_column(BigInteger)
