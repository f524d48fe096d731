"""What was done, and what is told of it."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Index,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Digest, Sequence, Table


class AuditEntry(Table):
    """Who did what to what; written in the transaction that did it, and never changed.

    ``place`` and ``code`` are given once, after the commit: ``services/audit_chain.py``.
    """

    __tablename__ = "audit_entries"

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(220))
    action: Mapped[str] = mapped_column(String(80))
    target: Mapped[str] = mapped_column(String(220))
    details: Mapped[dict[str, Any]]
    place: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    """Place in the chain, from 1 without gaps."""
    code: Mapped[str | None] = mapped_column(Digest)

    __table_args__ = (Index("ix_audit_entries_target", "target", "seq"),)


class AuditHead(Table):
    """The end of the audit chain; its one row is locked while entries are chained."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(BigInteger)
    code: Mapped[str] = mapped_column(Digest)
    key_id: Mapped[str] = mapped_column(String(16))
    """Of the key that made the codes."""


class AuditArchive(Table):
    """Entries that were moved to the object store: an unbroken stretch of the chain."""

    __tablename__ = "audit_archives"

    first_place: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_place: Mapped[int] = mapped_column(BigInteger)
    code_before: Mapped[str] = mapped_column(Digest)
    last_code: Mapped[str] = mapped_column(Digest)
    key: Mapped[str] = mapped_column(String(200))
    """Of the object: gzip-compressed NDJSON, an entry a line."""
    sha256: Mapped[str] = mapped_column(Digest)
    archived_at: Mapped[datetime]
    signature: Mapped[str] = mapped_column(Digest)
    """Of all the other columns."""


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


class CrashMark(Table):
    """What PostgreSQL forgets when it, or its machine, crashes: a table that is not logged.

    So whoever finds its mark gone knows that the last moments before may be gone, too, and a copy
    of the database that takes over after its machine was lost has none. SQLite forgets nothing.
    """

    __tablename__ = "crash_marks"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class EventOrder(Table):
    """The counter of outbox positions; its one row is locked while positions are given."""

    __tablename__ = "event_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    last_position: Mapped[int] = mapped_column(BigInteger)
