"""Shares, use and rules of the queue, and who may schedule."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Table


class ShareNode(Table):
    """Weight and limits of an organisation, a team or a user; where none stands: weight 1."""

    __tablename__ = "share_nodes"

    path: Mapped[str] = mapped_column(String(260), primary_key=True)
    """``org``, ``org/team`` or ``org/team/user``; empty for the whole system."""
    weight: Mapped[float]
    max_jobs: Mapped[int | None]
    max_slots: Mapped[int | None]
    changed_at: Mapped[datetime]


class TenantUsage(Table):
    """Decayed, price-weighted slot-seconds of a tenant, as they stood at ``as_of``.

    Of attempts that are ``counted``, and of no others.
    """

    __tablename__ = "tenant_usage"

    path: Mapped[str] = mapped_column(String(260), primary_key=True)
    usage: Mapped[float]
    forfeited: Mapped[float]
    """Claim on the share that lapsed while the tenant was idle; counts like usage."""
    as_of: Mapped[datetime]


class QueuePolicy(Table):
    """The rules of the queue that an admin changed; its one row."""

    __tablename__ = "queue_policy"

    id: Mapped[int] = mapped_column(primary_key=True)
    rules: Mapped[dict[str, Any]]
    changed_at: Mapped[datetime]


class LeaderLease(Table):
    """Who may schedule, until when; ``epoch`` rises with every change of holder."""

    __tablename__ = "leader_leases"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    holder: Mapped[str] = mapped_column(String(120))
    epoch: Mapped[int]
    expires_at: Mapped[datetime]
