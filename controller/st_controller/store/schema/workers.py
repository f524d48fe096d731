"""Agents on hosts, and what lets them join."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Digest, Id, Sequence, Slug, Table


class JoinToken(Table):
    """Lets a number of workers join until it expires."""

    __tablename__ = "join_tokens"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    token_hash: Mapped[str] = mapped_column(Digest, unique=True)
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    uses_left: Mapped[int]
    labels: Mapped[dict[str, Any]]
    provider: Mapped[str | None] = mapped_column(Slug)
    """Of every worker that joins with it."""
    revoked_at: Mapped[datetime | None]


class Worker(Table):
    """An agent on a host. ``observed`` is what it shows, ``desired`` what an operator ordered."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    credential_hash: Mapped[str] = mapped_column(Digest, unique=True)
    next_credential_hash: Mapped[str | None] = mapped_column(Digest, unique=True)
    """Of a credential that was handed out and not used yet; its first use puts it into force."""
    join_key_hash: Mapped[str | None] = mapped_column(Digest, unique=True)
    """Of the join token and the key that it joined with, by which it is known if it asks again."""
    credential_at: Mapped[datetime]
    """When the credential came into force."""
    rotate_ordered_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    """When its credential was voided; it may join again as another worker."""
    observed: Mapped[str] = mapped_column(String(20))
    desired: Mapped[str] = mapped_column(String(20))
    desired_by: Mapped[str | None] = mapped_column(String(210))
    """Who ordered that."""
    desired_at: Mapped[datetime | None]
    desired_why: Mapped[str | None] = mapped_column(String(200))
    drain_until: Mapped[datetime | None]
    """While it drains: when preemptible jobs are stopped; none: they are waited for."""
    garbage_ordered_at: Mapped[datetime | None]
    """When it was ordered of this one to remove what no attempt needs, and is not done yet."""
    garbage_collected_at: Mapped[datetime | None]
    """When it last did."""
    deleted_at: Mapped[datetime | None]
    """No list and no route knows it any more; its attempts are kept."""
    ephemeral: Mapped[bool]
    one_job: Mapped[bool]
    own_labels: Mapped[dict[str, Any]]
    set_labels: Mapped[dict[str, Any]]
    inventory: Mapped[dict[str, Any]]
    agent_version: Mapped[str] = mapped_column(String(40))
    joined_at: Mapped[datetime]
    last_heartbeat_at: Mapped[datetime | None]
    usage: Mapped[dict[str, Any] | None]
    """How busy it was at its last heartbeat."""

    __table_args__ = (Index("ix_workers_name", "name", "id"),)

    @property
    def labels(self) -> dict[str, str]:
        """The labels in force: those set here win over the worker's own."""
        return {**self.own_labels, **self.set_labels}


class GarbageOrderOfAll(Table):
    """When all workers were last ordered to remove what no attempt needs; its one row."""

    __tablename__ = "garbage_order_of_all"

    id: Mapped[int] = mapped_column(primary_key=True)
    ordered_at: Mapped[datetime]


class SlotFault(Table):
    """An accelerator, its driver or a link failed under an attempt that held this slot."""

    __tablename__ = "slot_faults"

    id: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    worker_id: Mapped[str] = mapped_column(ForeignKey("workers.id", ondelete="CASCADE"), index=True)
    slot: Mapped[int]
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    message: Mapped[str] = mapped_column(String(200))
    cordons: Mapped[bool]
    """Whether the slot had so many faults by then that it is offered no more."""
