"""People and programs, and what they sign in with."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import DEFAULT_TENANT, Digest, Id, Slug, Table


class User(Table):
    """A person or a service account."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    username: Mapped[str] = mapped_column(String(200), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(40))
    org: Mapped[str] = mapped_column(Slug, default=DEFAULT_TENANT)
    team: Mapped[str] = mapped_column(Slug, default=DEFAULT_TENANT)
    """The team as which they submit unless they say otherwise; ``Membership`` has all."""
    org_since: Mapped[datetime | None]
    """When they came here from another organisation; none: they were never in another."""
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["org", "team"], ["teams.org", "teams.slug"]),
        Index("ix_users_org", "org", "username"),
    )


class SetupToken(Table):
    """The one-time token that creates the first admin; the row is gone once it was used."""

    __tablename__ = "setup_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(Digest)
    created_at: Mapped[datetime]


class Session(Table):
    """A signed-in browser; ``services/sessions.py`` exchanges its token."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    token_hash: Mapped[str] = mapped_column(Digest, unique=True)
    next_hash: Mapped[str | None] = mapped_column(Digest, unique=True)
    """Of the token that comes into force when it is shown."""
    next_at: Mapped[datetime | None]
    previous_hash: Mapped[str | None] = mapped_column(Digest, index=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    renewed_at: Mapped[datetime]
    """When the token came into force."""
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    address: Mapped[str | None] = mapped_column(String(64))
    agent: Mapped[str | None] = mapped_column(String(300))


class ApiKey(Table):
    """A key of a user; only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(120))
    prefix: Mapped[str] = mapped_column(String(20))
    key_hash: Mapped[str] = mapped_column(Digest, unique=True)
    scopes: Mapped[list[Any] | None]
    addresses: Mapped[list[Any] | None]
    """Networks from which it may be used; none: from everywhere."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
