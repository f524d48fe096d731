"""Organisations, teams, who is in them, and what people may do."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Id, Slug, Table


class Organisation(Table):
    """The widest tenant: what is in one is not seen from another."""

    __tablename__ = "organisations"

    slug: Mapped[str] = mapped_column(Slug, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    time_zone: Mapped[str] = mapped_column(String(64))
    """IANA name; days and months of its quotas begin by it."""
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    """Nobody in it can sign in any more; what runs is left alone."""


class Team(Table):
    """Part of an organisation; users submit as one of theirs."""

    __tablename__ = "teams"

    org: Mapped[str] = mapped_column(ForeignKey("organisations.slug"), primary_key=True)
    slug: Mapped[str] = mapped_column(Slug, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
    """Nobody submits as this team any more."""


class Membership(Table):
    """A user is in a team of their organisation."""

    __tablename__ = "memberships"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    org: Mapped[str] = mapped_column(Slug, primary_key=True)
    team: Mapped[str] = mapped_column(Slug, primary_key=True)

    __table_args__ = (
        ForeignKeyConstraint(["org", "team"], ["teams.org", "teams.slug"]),
        Index("ix_memberships_team", "org", "team"),
    )


class CustomRole(Table):
    """A role that was made here; the built-in ones are in ``domain/policy/roles.py``."""

    __tablename__ = "roles"

    slug: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    permissions: Mapped[list[Any]]
    reach: Mapped[str] = mapped_column(String(10))
    rank: Mapped[int]
    created_at: Mapped[datetime]


class UserGrant(Table):
    """A permission that one user has, or is denied, whatever their role says; denial wins."""

    __tablename__ = "user_grants"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    permission: Mapped[str] = mapped_column(String(40), primary_key=True)
    effect: Mapped[str] = mapped_column(String(10))
    """``allow`` or ``deny``."""


class SavedConfig(Table):
    """Part of a job file that was saved under a name; ``version`` rises with every change."""

    __tablename__ = "configs"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    org: Mapped[str] = mapped_column(Slug)
    team: Mapped[str] = mapped_column(Slug)
    name: Mapped[str] = mapped_column(String(80))
    note: Mapped[str] = mapped_column(String(500))
    document: Mapped[dict[str, Any]]
    version: Mapped[int]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("org", "name"),)
