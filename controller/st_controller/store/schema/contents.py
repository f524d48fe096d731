"""Files in the object store."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Digest, Id, Slug, Table


class Artifact(Table):
    """A file of a job in the object store."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    path: Mapped[str] = mapped_column(String(512))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(Digest)
    possession: Mapped[str | None] = mapped_column(Digest)
    """Told to nobody; who tells it has the bytes. None: the content is not shared."""
    step: Mapped[int | None]
    key: Mapped[str] = mapped_column(String(1024), index=True)
    """Several artifacts of one organisation may have the same: equal content is stored once."""
    created_at: Mapped[datetime]
    stored_at: Mapped[datetime | None]
    """Set once the bytes were verified; until then nobody sees the artifact."""

    __table_args__ = (
        UniqueConstraint("attempt_id", "path"),
        Index("ix_artifacts_content", "sha256", "size"),
    )


class ArtifactUpload(Table):
    """An upload in parts that was begun; it outlives its job, so that it can be aborted."""

    __tablename__ = "artifact_uploads"

    key: Mapped[str] = mapped_column(String(1024), primary_key=True)
    upload_id: Mapped[str] = mapped_column(String(1024))
    """As the store calls it."""
    begun_at: Mapped[datetime]


class DoomedObject(Table):
    """An object that a deleted job left; it is removed, unless some artifact names it by then."""

    __tablename__ = "doomed_objects"

    key: Mapped[str] = mapped_column(String(1024), primary_key=True)
    doomed_at: Mapped[datetime] = mapped_column(index=True)


class Dataset(Table):
    """Content that was registered under a name; ``current`` marks what the name stands for."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    org: Mapped[str] = mapped_column(Slug)
    name: Mapped[str] = mapped_column(String(80))
    digest: Mapped[str] = mapped_column(Digest)
    samples: Mapped[int]
    archives: Mapped[list[Any]]
    """Each ``{"sha256", "size", "key"}``."""
    room: Mapped[int] = mapped_column(BigInteger)
    """Bytes that it takes where it is fetched: its archives, and the largest of them once more."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]
    stored_at: Mapped[datetime | None]
    current: Mapped[bool]

    __table_args__ = (UniqueConstraint("org", "name", "digest"),)
