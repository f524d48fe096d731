"""Tries of jobs on workers."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Id, Table


class Attempt(Table):
    """One try of a job on a worker. ``epoch`` fences: a call with another one is refused.

    An attempt on several workers has a row for each member, all with one number and one epoch.
    """

    __tablename__ = "attempts"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    epoch: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    outcome: Mapped[str | None] = mapped_column(String(20))
    failure: Mapped[dict[str, Any] | None]
    unstored: Mapped[list[Any] | None]
    """A sentence for each file that could not be stored; it counts if its end does."""
    stop: Mapped[str | None] = mapped_column(String(20))
    """The order that was given to end it early: cancel or preempt."""
    node: Mapped[int] = mapped_column(default=0)
    """Rank of the member, from 0; 0 leads, and the journal of all is stored under its id."""
    nodes: Mapped[int] = mapped_column(default=1)
    """Members in all."""
    worker_id: Mapped[str] = mapped_column(ForeignKey("workers.id"))
    slots: Mapped[list[Any]]
    price: Mapped[float]
    """Weight of a slot-second on this worker in the fair share."""
    rate: Mapped[int] = mapped_column(BigInteger, default=0)
    """Micro-units of the currency that its slots cost in an hour, all of them together."""
    booked_until: Mapped[datetime | None]
    """Moment up to which its use stands in ``charges``; none: nothing of it does."""
    booked: Mapped[bool] = mapped_column(default=False)
    """Whether all of its use stands there, because it has given back its slots."""
    checkpoint_at: Mapped[datetime | None]
    """When its newest complete checkpoint was stored."""
    offered_at: Mapped[datetime]
    offer_expires_at: Mapped[datetime]
    lease_expires_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    used_seconds: Mapped[float] = mapped_column(default=0.0)
    """Since its claim, for which its use is proven: by heartbeats, in the end by its worker."""
    behind_since: Mapped[datetime | None]
    """Since when its heartbeats have told of much less use than there was time for."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    """When its slots were given back, up to which they are charged, see ``domain.use``: before its
    end while it only uploads; by the members of a gang together, when the last has ended."""
    counted: Mapped[bool] = mapped_column(default=False)
    """Whether its use, which is over, stands in ``tenant_usage``."""
    acked_seq: Mapped[int]
    """Journal lines 1 to ``acked_seq`` are stored, each once."""
    stored_seq: Mapped[int] = mapped_column(default=0)
    """Of the leader of several members: lines that are stored of all of them together."""
    met_at: Mapped[datetime | None]
    """When this member had all that it needs, and waited for the others."""
    rendezvous: Mapped[dict[str, Any] | None]
    """Where the leader can be met: ``{"host", "port"}``."""

    __table_args__ = (
        UniqueConstraint("job_id", "number", "node"),
        Index("ix_attempts_worker", "worker_id", "state"),
        Index("ix_attempts_state", "state", "outcome"),
        Index(
            "ix_attempts_unbooked",
            "job_id",
            sqlite_where=text("NOT booked"),
            postgresql_where=text("NOT booked"),
        ),
        Index(
            "ix_attempts_uncounted",
            "released_at",
            sqlite_where=text("NOT counted"),
            postgresql_where=text("NOT counted"),
        ),
    )
