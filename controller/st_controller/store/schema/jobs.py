"""What people submit, and what became of it."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.requests import request_of, wants_of
from st_controller.store.schema.base import Digest, Id, Slug, Table

UNUSUAL = "priority <> 'normal'"
DEPENDENT = "state = 'queued' AND open_parents > 0"
"""Conditions of indexes, which are used where a query says the same in the same words."""


def _some(name: str, condition: str, *columns: str) -> Index:
    """An index of some rows alone: the others cost nothing there."""
    said = text(condition)
    return Index(name, *columns, sqlite_where=said, postgresql_where=said)


class Job(Table):
    """What a person submitted. ``version`` rises by one at every change of state."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    kind: Mapped[str] = mapped_column(String(20))
    """train, command or noop."""
    family: Mapped[str] = mapped_column(String(80))
    """Model family; for other kinds the kind."""
    config: Mapped[str | None] = mapped_column(String(80))
    """Name of the saved configuration that it was made of."""
    spec: Mapped[dict[str, Any]]
    dataset_pins: Mapped[dict[str, Any]]
    """Dataset name -> id of the content that the name stood for at submission."""
    request: Mapped[str] = mapped_column(Text, default=request_of)
    """Its resources and time limit as JSON; for the scheduler."""
    wants: Mapped[list[Any]] = mapped_column(default=wants_of)
    """Contents that a worker may hold already."""
    expected_seconds: Mapped[float | None]
    """Declared duration; ``JobSpec.expected_seconds``."""
    priority: Mapped[str] = mapped_column(String(20))
    level: Mapped[int]
    """Level of the class that was asked for."""
    override: Mapped[int | None]
    """Level that an admin put in place of it, 0 to 50."""
    org: Mapped[str] = mapped_column(Slug)
    team: Mapped[str] = mapped_column(Slug)
    slots: Mapped[int]
    """Slots on all its nodes together."""
    not_before: Mapped[datetime | None]
    """Moment before which it is not served: asked for, or the end of a pause between tries."""
    open_parents: Mapped[int]
    """Jobs in ``after`` that have not succeeded yet."""
    array_id: Mapped[str | None] = mapped_column(ForeignKey("job_arrays.id"))
    array_index: Mapped[int | None]
    preemptible: Mapped[bool]
    preemptions: Mapped[int]
    """How often it was stopped to make room for others."""
    changed_at: Mapped[datetime] = mapped_column(index=True)
    """When anything that the scheduler looks at was written last."""
    state: Mapped[str] = mapped_column(String(20))
    version: Mapped[int]
    cancel_requested_at: Mapped[datetime | None]
    submitted_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    submitted_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    """No list and no route knows it any more; what it used still counts, for good, and what it
    stored until that is removed."""
    purged_at: Mapped[datetime | None]
    """When the last of its files was given up, some time after it was deleted."""
    max_attempts: Mapped[int]
    attempts: Mapped[int]
    """Attempts made so far; also the number of the newest."""
    tries_used: Mapped[int]
    """Attempts that count against ``max_attempts``."""
    reason: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]
    checkpoint_step: Mapped[int | None]
    checkpoint_id: Mapped[str | None] = mapped_column(Id)
    """Artifact id of the newest complete checkpoint's manifest."""
    held_micros: Mapped[int | None] = mapped_column(BigInteger)
    """Money that is held for it, micro-units; none: no quota counts it."""
    held_slot_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Time of slots that is held for it, milliseconds."""
    stop_reason: Mapped[dict[str, Any] | None]
    """Why it is being stopped for good; it is told once its attempt has ended."""

    # Lists are told newest first, page by page: each of these gives its jobs in that order.
    __table_args__ = (
        Index("ix_jobs_state", "state", "submitted_at", "id"),
        Index("ix_jobs_submitted_at", "submitted_at", "id"),
        Index("ix_jobs_submitted_by", "submitted_by", "submitted_at", "id"),
        Index("ix_jobs_org", "org", "submitted_at", "id"),
        _some("ix_jobs_priority", UNUSUAL, "priority", "submitted_at", "id"),
        _some("ix_jobs_array", "array_id IS NOT NULL", "array_id", "state", "deleted_at"),
        _some("ix_jobs_dependents", DEPENDENT, "state", "open_parents"),
        _some("ix_jobs_unpurged", "deleted_at IS NOT NULL AND purged_at IS NULL", "deleted_at"),
    )


class JobDependency(Table):
    """A job that waits for another to succeed."""

    __tablename__ = "job_dependencies"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    parent_id: Mapped[str] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class JobArray(Table):
    """Jobs that were submitted together as variations of one specification."""

    __tablename__ = "job_arrays"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    org: Mapped[str] = mapped_column(Slug)
    team: Mapped[str] = mapped_column(Slug)
    submitted_by: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    submitted_at: Mapped[datetime]
    size: Mapped[int]
    max_running: Mapped[int | None]
    """Most of its jobs that hold slots at one time."""

    __table_args__ = (
        Index("ix_job_arrays_submitted_at", "submitted_at", "id"),
        Index("ix_job_arrays_org", "org", "submitted_at", "id"),
    )


class JobTransition(Table):
    """One change of a job's state; never altered."""

    __tablename__ = "job_transitions"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime]
    reason: Mapped[dict[str, Any] | None]


class IdempotencyKey(Table):
    """A submission that was made under a key; the same key and body give the same job again."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(Digest)
    result: Mapped[dict[str, Any] | None]
    """Ids of what it made; filled in the transaction that took the key."""
    created_at: Mapped[datetime] = mapped_column(index=True)
