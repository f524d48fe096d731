"""Rows as the scheduler knows them: jobs that wait or run, shares and rules."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from sqlalchemy import Row, Select, and_, bindparam, func, or_, select
from sqlalchemy.orm import Session

from st_controller.domain.policy.quotas import Meter
from st_controller.domain.scheduling.model import (
    Grant,
    Level,
    PendingJob,
    Policy,
    RunningJob,
    Shape,
    Share,
    Tenant,
    limit_step,
)
from st_controller.services.durations import Durations
from st_controller.services.policy import running_limits
from st_controller.store.moments import Microseconds, microseconds
from st_controller.store.requests import kept_as
from st_controller.store.schema import (
    Attempt,
    Dataset,
    Job,
    JobArray,
    QueuePolicy,
    ShareNode,
    User,
)
from st_shared.protocol.states import AttemptState, JobState, Outcome

_HOLDS = (JobState.ASSIGNED, JobState.RUNNING)
"""States of a job whose attempt holds slots."""
_HAS_SLOTS = or_(Attempt.state != AttemptState.UPLOADING, Attempt.nodes > 1)
_MOST_IDS = 500
"""Ids in one statement."""
_MICROSECOND = timedelta(microseconds=1)
_POLICY = TypeAdapter(Policy)


Mark = tuple[int, datetime]
"""Version of a job and when it was written of last: together they tell whether it changed."""


class Tally(NamedTuple):
    """Counted over the marks of the jobs that anything was written of since a moment."""

    jobs: int
    versions: int
    """Their sum."""
    delay: int
    """Microseconds from the moment to when each was written of, added up: an override changes no
    version."""

    @classmethod
    def of(cls, marks: Iterable[Mark], since: datetime) -> "Tally":
        """The same of what is in memory."""
        late = [mark for mark in marks if mark[1] >= since]
        delay = sum((at - since for _, at in late), timedelta())
        return cls(len(late), sum(version for version, _ in late), delay // _MICROSECOND)


@dataclass(frozen=True)
class JobNow:
    """How one job stands for the scheduler: it waits, it runs, or neither."""

    id: str
    mark: Mark
    waits: PendingJob | None
    runs: RunningJob | None
    attempt: str | None
    """The live attempt of a job that runs."""
    last_expired: bool
    """Whether its last attempt was an offer that nobody claimed, so that nothing ran."""


def policy(session: Session) -> Policy:
    """The rules in force."""
    row = session.get(QueuePolicy, 1)
    return _POLICY.validate_python(row.rules) if row else Policy()


def shares(session: Session) -> dict[str, Share]:
    """Weights and limits of the nodes for which any were set; of two limits, the lower."""
    rows = session.scalars(select(ShareNode))
    found = {row.path: Share(row.weight, row.max_jobs, row.max_slots) for row in rows}
    for path, limits in running_limits.read(session).items():
        share = found.get(path, Share())
        found[path] = Share(
            share.weight,
            _lower(share.max_jobs, limits.get(Meter.RUNNING_JOBS)),
            _lower(share.max_slots, limits.get(Meter.RUNNING_SLOTS)),
        )
    return found


def _lower(one: int | None, other: int | None) -> int | None:
    limits = [limit for limit in (one, other) if limit is not None]
    return min(limits, default=None)


def array_caps(session: Session) -> dict[str, int]:
    """Job arrays of which only so many jobs may run at one time."""
    capped = select(JobArray.id, JobArray.max_running).where(JobArray.max_running.is_not(None))
    return {array_id: most for array_id, most in session.execute(capped) if most is not None}


def count_waiting(session: Session) -> int:
    """How many jobs may be served, now or from a moment that is known."""
    return session.scalar(select(func.count()).select_from(Job).where(_may_be_served())) or 0


def foremost(session: Session, learned: Durations, each: int) -> list[PendingJob]:
    """The first jobs of every user, level and request: enough to decide who is served next."""
    turn = func.row_number().over(
        partition_by=(Job.submitted_by, Job.level, Job.override, Job.request),
        order_by=(Job.submitted_at, Job.id),
    )
    ranked = select(Job.id, turn.label("turn")).where(_may_be_served()).subquery()
    rows = session.execute(
        _job_columns().join(ranked, ranked.c.id == Job.id).where(ranked.c.turn <= each)
    )
    return _all_pending(session, rows, learned)


def waiting_after(
    session: Session, learned: Durations, turn: tuple[float, str] | None, most: int
) -> list[PendingJob]:
    """Up to ``most`` jobs that may be served, in order of submission, after the one of a turn."""
    query = _job_columns().where(_may_be_served())
    if turn is not None:
        at, job_id = datetime.fromtimestamp(turn[0], UTC), turn[1]
        query = query.where(
            or_(Job.submitted_at > at, and_(Job.submitted_at == at, Job.id > job_id))
        )
    rows = session.execute(query.order_by(Job.submitted_at, Job.id).limit(most))
    return _all_pending(session, rows, learned)


def _may_be_served() -> Any:
    return and_(Job.state == JobState.QUEUED, Job.open_parents == 0)


def _all_pending(
    session: Session, found: Iterable[Row[Any]], learned: Durations
) -> list[PendingJob]:
    rows = list(found)
    datasets = _digests(session, rows)
    tenants: dict[tuple[str, str, str], Tenant] = {}
    return [_pending(row, datasets, learned, tenants) for row in rows]


def running(session: Session, learned: Durations) -> Iterator[JobNow]:
    """Every job that holds slots."""
    query = _job_columns(*_ATTEMPT).where(Job.state.in_(_HOLDS), _its_attempt(), _HAS_SLOTS)
    rows = session.execute(query).all()
    datasets, gangs = _digests(session, rows), _gangs(session, rows)
    for row in rows:
        yield _running(row, datasets, learned, gangs)


def jobs(session: Session, ids: Iterable[str], learned: Durations) -> list[JobNow]:
    """How these jobs stand; those that do not exist are left out."""
    wanted = sorted(ids)
    found: list[JobNow] = []
    for start in range(0, len(wanted), _MOST_IDS):
        rows = session.execute(_JOBS_NOW, {"ids": wanted[start : start + _MOST_IDS]}).all()
        datasets, gangs = _digests(session, rows), _gangs(session, rows)
        found += [_now(row, datasets, learned, gangs) for row in rows]
    return found


def changed_since(session: Session, moment: datetime) -> list[tuple[str, Mark]]:
    """Jobs that anything was written of since ``moment``."""
    query = select(Job.id, Job.version, Job.changed_at).where(Job.changed_at >= moment)
    return [(job_id, (version, at)) for job_id, version, at in session.execute(query)]


def count_changed_since(session: Session, moment: datetime) -> Tally:
    """What was written of jobs since ``moment``, without reading it."""
    delay = Microseconds(Job.changed_at) - microseconds(moment)
    counted = select(
        func.count(),
        func.coalesce(func.sum(Job.version), 0),
        func.coalesce(func.sum(delay), 0),
    ).where(Job.changed_at >= moment)
    jobs, versions, late = session.execute(counted).one()
    return Tally(int(jobs), int(versions), int(late))


def _job_columns(*more: Any) -> Select[Any]:
    columns: Any = select(
        Job.id,
        Job.org,
        Job.team,
        User.username,
        Job.level,
        Job.override,
        Job.submitted_at,
        Job.queued_at,
        Job.request,
        Job.not_before,
        Job.wants,
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
        Job.changed_at,
        *more,
    )
    joined: Select[Any] = columns.join(User, User.id == Job.submitted_by)
    return joined


def _its_attempt() -> Any:
    """Its newest attempt; of a gang, the leader's part."""
    return (Attempt.job_id == Job.id) & (Attempt.number == Job.attempts) & (Attempt.node == 0)


_ATTEMPT: tuple[Any, ...] = (
    Attempt.id.label("attempt_id"),
    Attempt.state.label("attempt_state"),
    Attempt.slots.label("attempt_slots"),
    Attempt.nodes.label("attempt_nodes"),
    Attempt.outcome,
    Attempt.worker_id,
    Attempt.offered_at,
    Attempt.checkpoint_at,
    Attempt.stop,
    Attempt.price,
)
# Made once: building a statement costs more than running it.
_JOBS_NOW = (
    _job_columns(*_ATTEMPT)
    .outerjoin(Attempt, _its_attempt())
    .where(Job.id.in_(bindparam("ids", expanding=True)))
)


def _gangs(session: Session, rows: Iterable[Row[Any]]) -> dict[str, tuple[Grant, ...]]:
    """The slots of every member, of jobs whose newest attempt has several."""
    ids = sorted(row.id for row in rows if (row.attempt_nodes or 1) > 1)
    found: dict[str, tuple[Grant, ...]] = {}
    for start in range(0, len(ids), _MOST_IDS):
        query = (
            select(Attempt.job_id, Attempt.worker_id, Attempt.slots)
            .join(Job, (Job.id == Attempt.job_id) & (Job.attempts == Attempt.number))
            .where(Job.id.in_(ids[start : start + _MOST_IDS]))
            .order_by(Attempt.job_id, Attempt.node)
        )
        for job_id, worker_id, slots in session.execute(query):
            found[job_id] = (*found.get(job_id, ()), Grant(worker_id, tuple(slots)))
    return found


def _now(
    row: Row[Any],
    datasets: Mapping[str, str],
    learned: Durations,
    gangs: Mapping[str, tuple[Grant, ...]],
) -> JobNow:
    # The members of a gang give their slots back together.
    only_uploads = row.attempt_state == AttemptState.UPLOADING and row.attempt_nodes == 1
    if row.state in _HOLDS and not only_uploads:
        return _running(row, datasets, learned, gangs)
    waits = row.state == JobState.QUEUED and row.open_parents == 0
    return JobNow(
        row.id,
        (row.version, row.changed_at),
        waits=_pending(row, datasets, learned, {}) if waits else None,
        runs=None,
        attempt=None,
        last_expired=row.outcome == Outcome.EXPIRED,
    )


def _running(
    row: Row[Any],
    datasets: Mapping[str, str],
    learned: Durations,
    gangs: Mapping[str, tuple[Grant, ...]],
) -> JobNow:
    held = RunningJob(
        _pending(row, datasets, learned, {}),
        gangs.get(row.id) or (Grant(row.worker_id, tuple(row.attempt_slots)),),
        row.offered_at.timestamp(),
        row.checkpoint_at.timestamp() if row.checkpoint_at else None,
        stopping=row.stop is not None,
        price=row.price,
    )
    return JobNow(
        row.id,
        (row.version, row.changed_at),
        waits=None,
        runs=held,
        attempt=row.attempt_id,
        last_expired=False,
    )


def _pending(
    row: Row[Any],
    datasets: Mapping[str, str],
    learned: Durations,
    tenants: dict[tuple[str, str, str], Tenant],
) -> PendingJob:
    names = (row.org, row.team, row.username)
    tenant = tenants.get(names)
    if tenant is None:
        tenant = tenants[names] = Tenant(*names)
    level = row.level if row.override is None else row.override
    submitted = row.submitted_at.timestamp()
    return PendingJob(
        id=row.id,
        tenant=tenant,
        level=Level(level // 10),
        submitted=submitted,
        waiting_since=row.queued_at.timestamp() if row.queued_at else submitted,
        shape=shape_of(row.request),
        not_before=row.not_before.timestamp() if row.not_before else 0.0,
        wants=tuple(datasets.get(want, want) for want in row.wants),
        array=row.array_id,
        expected=row.expected_seconds or learned.of(row.submitted_by, row.name, row.family),
        preemptible=row.preemptible,
        preemptions=row.preemptions,
    )


@lru_cache(maxsize=10_000)
def shape_of(request: str) -> Shape:
    """The shape that a job's request stands for."""
    asked = json.loads(request)
    return Shape(
        slots=asked["slots"],
        accelerator=asked["accelerator"],
        min_memory_gb=asked["min_memory_gb"],
        nodes=asked["nodes"],
        labels=tuple(sorted(asked["labels"].items())),
        provider=asked["provider"],
        limit=limit_step(asked["limit"]),
    )


def _digests(session: Session, rows: Iterable[Row[Any]]) -> dict[str, str]:
    """Dataset id -> what workers call its content, of what these jobs want."""
    wanted = sorted({want for row in rows for want in row.wants})
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _MOST_IDS):
        part = wanted[start : start + _MOST_IDS]
        query = select(Dataset.id, Dataset.org, Dataset.digest).where(Dataset.id.in_(part))
        found.update((key, kept_as(org, digest)) for key, org, digest in session.execute(query))
    return found
