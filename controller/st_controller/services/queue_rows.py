"""Rows of jobs and attempts as the scheduler knows them: what waits, and what holds slots."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, Text, cast, select
from sqlalchemy.orm import Session

from st_controller.domain import use
from st_controller.domain.scheduling.model import (
    Grant,
    Level,
    PendingJob,
    RunningJob,
    Shape,
    Tenant,
    limit_step,
)
from st_controller.services.durations import Durations
from st_controller.services.queue_marks import SECOND, Mark
from st_controller.store.moments import Microseconds
from st_controller.store.requests import kept_as, model_of
from st_controller.store.schema import Attempt, Dataset, Job, User
from st_shared.protocol.content import model_kept_as
from st_shared.protocol.content_room import needed
from st_shared.protocol.states import AttemptState, JobState

HOLDS = (JobState.ASSIGNED, JobState.RUNNING)
"""States of a job whose attempt holds slots."""
MOST_IDS = 500
"""Ids in one statement."""


GIB = 2**30


class Content(NamedTuple):
    """A dataset as workers know it."""

    kept_as: str
    """What they call it."""
    room_gb: float
    """What it takes where it is fetched, GiB."""


@dataclass(frozen=True)
class JobNow:
    """How one job stands for the scheduler: it waits, it runs, or neither."""

    id: str
    mark: Mark
    waits: PendingJob | None
    runs: RunningJob | None
    attempt: str | None
    """The live attempt of a job that runs."""
    used: tuple[float, float] | None
    """From when until when its last attempt, which is over, is charged; none: nothing ran."""


class Together(NamedTuple):
    """The members of the newest attempt of a job, the leader first."""

    grants: tuple[Grant, ...]
    claims: tuple[datetime | None, ...]
    stopping: bool = False
    """Whether one of them was told to stop, as the others are if one fails."""


def job_columns(*more: Any) -> Select[Any]:
    """What is read of every job and of whoever submitted it, and more where that is asked for."""
    columns: Any = select(
        Job.id,
        Job.org,
        Job.team,
        User.username,
        Job.level,
        Job.override,
        # Numbers and text, which are read quicker than moments and JSON.
        Microseconds(Job.submitted_at).label("submitted"),
        Microseconds(Job.queued_at).label("queued"),
        Job.request,
        Microseconds(Job.not_before).label("not_before"),
        cast(Job.wants, Text).label("wants"),
        Job.array_id,
        Job.expected_seconds,
        Job.submitted_by,
        Job.name,
        Job.family,
        Job.preemptible,
        Job.preemptions,
        Job.state,
        Job.open_parents,
        Job.version,
        Microseconds(Job.changed_at).label("changed"),
        *more,
    )
    joined: Select[Any] = columns.join(User, User.id == Job.submitted_by)
    return joined


def its_attempt() -> Any:
    """Its newest attempt; of a gang, the leader's part."""
    return (Attempt.job_id == Job.id) & (Attempt.number == Job.attempts) & (Attempt.node == 0)


ATTEMPT: tuple[Any, ...] = (  # what is read of the newest attempt
    Attempt.id.label("attempt_id"),
    Attempt.state.label("attempt_state"),
    Attempt.slots.label("attempt_slots"),
    Attempt.nodes.label("attempt_nodes"),
    Attempt.worker_id,
    Attempt.offered_at,
    Attempt.claimed_at,
    Attempt.released_at,
    Attempt.checkpoint_at,
    Attempt.stop,
    Attempt.price,
)


def gangs(session: Session, rows: Iterable[Row[Any]]) -> dict[str, Together]:
    """Slots and claims of every member, of jobs whose newest attempt has several."""
    ids = sorted(row.id for row in rows if (row.attempt_nodes or 1) > 1)
    found: dict[str, Together] = {}
    for start in range(0, len(ids), MOST_IDS):
        query = (
            select(
                Attempt.job_id,
                Attempt.worker_id,
                Attempt.slots,
                Attempt.claimed_at,
                Attempt.stop.is_not(None),
            )
            .join(Job, (Job.id == Attempt.job_id) & (Job.attempts == Attempt.number))
            .where(Job.id.in_(ids[start : start + MOST_IDS]))
            .order_by(Attempt.job_id, Attempt.node)
        )
        for job_id, worker_id, slots, claimed, stops in session.execute(query):
            known = found.get(job_id, Together((), ()))
            grants = (*known.grants, Grant(worker_id, tuple(slots)))
            claims = (*known.claims, claimed)
            found[job_id] = Together(grants, claims, known.stopping or bool(stops))
    return found


def now(
    row: Row[Any],
    datasets: Mapping[str, Content],
    learned: Durations,
    together: Mapping[str, Together],
    tenants: dict[tuple[str, str, str], Tenant],
) -> JobNow:
    """How the job of a row stands; ``together`` are its gangs, by job.

    ``tenants`` are shared by the jobs of a reading.
    """
    # The members of a gang give their slots back together.
    only_uploads = row.attempt_state == AttemptState.UPLOADING and row.attempt_nodes == 1
    if row.state in HOLDS and not only_uploads:
        return running(row, datasets, learned, together)
    waits = row.state == JobState.QUEUED and row.open_parents == 0
    return JobNow(
        row.id,
        (row.version, row.changed),
        waits=pending(row, datasets, learned, tenants) if waits else None,
        runs=None,
        attempt=None,
        used=_used(row, together.get(row.id)),
    )


def _used(row: Row[Any], gang: Together | None) -> tuple[float, float] | None:
    claims = gang.claims if gang else (row.claimed_at,)
    since = use.begun_of(claims, row.attempt_nodes or 1)
    if since is None or row.released_at is None:
        return None
    return since.timestamp(), max(since, row.released_at).timestamp()


def running(
    row: Row[Any],
    datasets: Mapping[str, Content],
    learned: Durations,
    together: Mapping[str, Together],
) -> JobNow:
    """The job of a row that holds slots."""
    gang = together.get(row.id)
    held = RunningJob(
        pending(row, datasets, learned, {}),
        gang.grants if gang else (Grant(row.worker_id, tuple(row.attempt_slots)),),
        row.offered_at.timestamp(),
        row.checkpoint_at.timestamp() if row.checkpoint_at else None,
        stopping=gang.stopping if gang else row.stop is not None,
        price=row.price,
    )
    return JobNow(
        row.id,
        (row.version, row.changed),
        waits=None,
        runs=held,
        attempt=row.attempt_id,
        used=None,
    )


def pending(
    row: Row[Any],
    datasets: Mapping[str, Content],
    learned: Durations,
    tenants: dict[tuple[str, str, str], Tenant],
) -> PendingJob:
    """The job of a row as if it waited; ``tenants`` are shared by the jobs of a reading."""
    names = (row.org, row.team, row.username)
    tenant = tenants.get(names)
    if tenant is None:
        tenant = tenants[names] = Tenant(*names)
    level = row.level if row.override is None else row.override
    submitted = row.submitted / SECOND
    not_before = row.not_before / SECOND if row.not_before is not None else 0.0
    wants = _wants(row.wants)
    fetched = [datasets[want] for want in wants if want in datasets]
    return PendingJob(
        id=row.id,
        tenant=tenant,
        level=Level(level // 10),
        submitted=submitted,
        waiting_since=max(row.queued / SECOND if row.queued is not None else submitted, not_before),
        shape=shape_of(row.request, sum([each.room_gb for each in fetched])),
        not_before=not_before,
        wants=tuple(_wanted(row, datasets)),
        array=row.array_id,
        expected=row.expected_seconds or learned.of(row.submitted_by, row.name, row.family),
        preemptible=row.preemptible,
        preemptions=row.preemptions,
    )


def _wanted(row: Row[Any], datasets: Mapping[str, Content]) -> Iterator[str]:
    """What workers call the contents that a job wants; a model as its organisation has it first."""
    for want in _wants(row.wants):
        if (model := model_of(want)) is not None:
            yield _model_of(row.org, model)
        yield datasets[want].kept_as if want in datasets else want


_model_of = lru_cache(maxsize=10_000)(model_kept_as)


@lru_cache(maxsize=10_000)
def _wants(told: str) -> tuple[str, ...]:
    """The contents that a job wants."""
    return tuple(json.loads(told))


@lru_cache(maxsize=10_000)
def shape_of(request: str, content_gb: float = 0.0) -> Shape:
    """The shape that a job's request stands for, whose datasets take so much where they are."""
    asked = json.loads(request)
    return Shape(
        slots=asked["slots"],
        accelerator=asked["accelerator"],
        min_memory_gb=asked["min_memory_gb"],
        nodes=asked["nodes"],
        labels=tuple(sorted(asked["labels"].items())),
        provider=asked["provider"],
        limit=limit_step(asked["limit"]),
        content_gb=needed(content_gb),
    )


def contents(session: Session, rows: Iterable[Row[Any]]) -> dict[str, Content]:
    """Dataset id -> what workers know of its content, of what these jobs want."""
    wanted = sorted({want for row in rows for want in _wants(row.wants)})
    found: dict[str, Content] = {}
    for start in range(0, len(wanted), MOST_IDS):
        part = wanted[start : start + MOST_IDS]
        query = select(Dataset.id, Dataset.org, Dataset.digest, Dataset.room).where(
            Dataset.id.in_(part)
        )
        for key, org, digest, room in session.execute(query):
            found[key] = Content(kept_as(org, digest), room / GIB)
    return found
