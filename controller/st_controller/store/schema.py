"""The schema: every table, with what a row promises."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from st_controller.store.moments import UtcMoment
from st_controller.store.requests import expected_of, request_of, wants_of

Id = String(40)
Digest = String(64)
Slug = String(64)
DEFAULT_TENANT = "default"
"""Organisation and team of users who were put into no other."""
Sequence = BigInteger().with_variant(Integer, "sqlite")


class Table(DeclarativeBase):
    """The base of all tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it so
        datetime: UtcMoment(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
        bytes: LargeBinary(),
    }


class User(Table):
    """A person or a service account."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    username: Mapped[str] = mapped_column(String(200), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(40))
    org: Mapped[str] = mapped_column(Slug, default=DEFAULT_TENANT)
    """Organisation whose share the user's jobs count against."""
    team: Mapped[str] = mapped_column(Slug, default=DEFAULT_TENANT)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class SetupToken(Table):
    """The one-time token that creates the first admin; the row is gone once it was used."""

    __tablename__ = "setup_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(Digest)
    created_at: Mapped[datetime]


class Session(Table):
    """A signed-in browser."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    token_hash: Mapped[str] = mapped_column(Digest, unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class ApiKey(Table):
    """A key of a user; only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(120))
    prefix: Mapped[str] = mapped_column(String(20))
    key_hash: Mapped[str] = mapped_column(Digest, unique=True)
    scopes: Mapped[list[Any] | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


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

    @property
    def labels(self) -> dict[str, str]:
        """The labels in force: those set here win over the worker's own."""
        return {**self.own_labels, **self.set_labels}


class Job(Table):
    """What a person submitted. ``version`` rises by one at every change of state."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    kind: Mapped[str] = mapped_column(String(20))
    """train, command or noop."""
    family: Mapped[str] = mapped_column(String(80))
    """Model family; for other kinds the kind."""
    spec: Mapped[dict[str, Any]]
    dataset_pins: Mapped[dict[str, Any]]
    """Dataset name -> id of the content that the name stood for at submission."""
    request: Mapped[str] = mapped_column(Text, default=request_of)
    """Its resources and time limit as JSON; for the scheduler."""
    wants: Mapped[list[Any]] = mapped_column(default=wants_of)
    """Contents that a worker may hold already."""
    expected_seconds: Mapped[float | None] = mapped_column(default=expected_of)
    """Declared duration, for forecasts."""
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
    array_id: Mapped[str | None] = mapped_column(ForeignKey("job_arrays.id"), index=True)
    array_index: Mapped[int | None]
    preemptible: Mapped[bool]
    preemptions: Mapped[int]
    """How often it was stopped to make room for others."""
    changed_at: Mapped[datetime] = mapped_column(index=True)
    """When anything that the scheduler looks at was written last."""
    state: Mapped[str] = mapped_column(String(20))
    version: Mapped[int]
    cancel_requested_at: Mapped[datetime | None]
    submitted_by: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    submitted_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
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

    __table_args__ = (
        Index("ix_jobs_queue", "state", "level", "submitted_at"),
        Index("ix_jobs_submitted_at", "submitted_at", "id"),
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
    submitted_by: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    submitted_at: Mapped[datetime]
    size: Mapped[int]
    max_running: Mapped[int | None]
    """Most of its jobs that hold slots at one time."""


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
    """Decayed, price-weighted slot-seconds of a tenant, as they stood at ``as_of``."""

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
    checkpoint_at: Mapped[datetime | None]
    """When its newest complete checkpoint was stored."""
    offered_at: Mapped[datetime]
    offer_expires_at: Mapped[datetime]
    lease_expires_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    """When its slots were given back, up to which they are charged: before its end while it only
    uploads; by the members of a gang together, when the last has ended."""
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
        Index("ix_attempts_state", "state"),
    )


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


class Dataset(Table):
    """Content that was registered under a name; ``current`` marks what the name stands for."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    digest: Mapped[str] = mapped_column(Digest)
    samples: Mapped[int]
    archives: Mapped[list[Any]]
    """Each ``{"sha256", "size", "key"}``."""
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]
    stored_at: Mapped[datetime | None]
    current: Mapped[bool]

    __table_args__ = (UniqueConstraint("name", "digest"),)


class AuditEntry(Table):
    """Who did what to what; written in the transaction that did it."""

    __tablename__ = "audit_entries"

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(220))
    action: Mapped[str] = mapped_column(String(80))
    target: Mapped[str] = mapped_column(String(220))
    details: Mapped[dict[str, Any]]


class OutboxEvent(Table):
    """An event to be delivered. ``position`` is given after the commit, in one global order."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    topic: Mapped[str] = mapped_column(String(80))
    kind: Mapped[str] = mapped_column(String(40))
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    position: Mapped[int | None] = mapped_column(BigInteger, unique=True)

    __table_args__ = (Index("ix_outbox_topic", "topic", "position"),)


class EventOrder(Table):
    """The counter of outbox positions; its one row is locked while positions are given."""

    __tablename__ = "event_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    last_position: Mapped[int] = mapped_column(BigInteger)


class LeaderLease(Table):
    """Who may schedule, until when; ``epoch`` rises with every change of holder."""

    __tablename__ = "leader_leases"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    holder: Mapped[str] = mapped_column(String(120))
    epoch: Mapped[int]
    expires_at: Mapped[datetime]
