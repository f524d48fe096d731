"""Which jobs need the word of a person, and what was said."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Id, Slug, Table


class ApprovalRule(Table):
    """What makes a job wait for approval, as ``domain/policy/approval_rules.py`` reads it."""

    __tablename__ = "approval_rules"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    org: Mapped[str | None] = mapped_column(Slug)
    """Only jobs of it; none: of all organisations."""
    condition: Mapped[str] = mapped_column(String(20))
    amount: Mapped[int] = mapped_column(BigInteger)
    pattern: Mapped[str] = mapped_column(String(200))
    exempt_roles: Mapped[list[Any]]
    exempt_users: Mapped[list[Any]]
    approver: Mapped[str] = mapped_column(String(40))
    """Role that an approver must have, or one of a higher rank."""
    quorum: Mapped[int]
    expires_after: Mapped[float]
    """Seconds."""
    priority: Mapped[int]
    enabled: Mapped[bool]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    changed_at: Mapped[datetime]


class Approval(Table):
    """A job that waits, or waited, for approval."""

    __tablename__ = "approvals"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    requested_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    """Who submitted the job, or tried it again: neither decides."""
    state: Mapped[str] = mapped_column(String(20))
    """pending, approved, rejected, expired or cancelled."""
    approver: Mapped[str] = mapped_column(String(40))
    rank: Mapped[int]
    quorum: Mapped[int]
    reasons: Mapped[list[Any]]
    """Id and sentence of each rule."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_approvals_pending", "state", "expires_at"),)


class ApprovalDecision(Table):
    """What one person said of it; never altered."""

    __tablename__ = "approval_decisions"

    approval_id: Mapped[str] = mapped_column(
        ForeignKey("approvals.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    decision: Mapped[str] = mapped_column(String(10))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
