"""Lines that attempts wrote."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Digest, Table


class JournalChunk(Table):
    """Consecutive journal lines that arrived together, compressed."""

    __tablename__ = "journal_chunks"

    attempt_id: Mapped[str] = mapped_column(
        ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True
    )
    first_seq: Mapped[int] = mapped_column(primary_key=True)
    last_seq: Mapped[int]
    logs: Mapped[int]
    """How many of the lines are log lines."""
    metrics: Mapped[int]
    """How many of the lines are metric points."""
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    """The earliest and latest moment that a line gives itself, by the clock of the worker."""
    body: Mapped[bytes]
    """gzip-compressed NDJSON."""


class JournalSegment(Table):
    """Consecutive journal lines that were moved to the object store, as one object."""

    __tablename__ = "journal_segments"

    attempt_id: Mapped[str] = mapped_column(
        ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True
    )
    first_seq: Mapped[int] = mapped_column(primary_key=True)
    last_seq: Mapped[int]
    logs: Mapped[int]
    metrics: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    key: Mapped[str] = mapped_column(String(200))
    size: Mapped[int]
    """Bytes of the object, which is gzip-compressed NDJSON."""
    sha256: Mapped[str] = mapped_column(Digest)
    """Of the object."""
    points: Mapped[list[Any]]
    """Some of the metric lines, evenly chosen, so that a curve needs no object."""
