"""Which policy is in force, and its rules of resources."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Id, Slug, Table


class PolicyVersion(Table):
    """The policy in force; its one row is missing as long as nobody has made any.

    Everything that changes what may be submitted writes a new ``version`` in its transaction, one
    that was never used before: so a process that has read the policy of a version knows it.
    """

    __tablename__ = "policy_versions"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(Id)


class ResourceRule(Table):
    """What somebody may or may not ask for, as ``domain/policy/resource_rules.py`` reads it."""

    __tablename__ = "resource_rules"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    org: Mapped[str | None] = mapped_column(Slug)
    """Only its members; none: of all organisations."""
    subject_kind: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(String(200))
    resource: Mapped[str] = mapped_column(String(20))
    pattern: Mapped[str] = mapped_column(String(200))
    effect: Mapped[str] = mapped_column(String(10))
    note: Mapped[str] = mapped_column(String(500))
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    changed_at: Mapped[datetime]
