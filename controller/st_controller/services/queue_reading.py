"""What the scheduler is told of the database: jobs that wait or run, shares and rules."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ARRAY, Row, String, and_, bindparam, column, func, or_, select, text, true
from sqlalchemy.orm import Session

from st_controller.domain.policy.quotas import Meter
from st_controller.domain.scheduling.forecast import Dependent
from st_controller.domain.scheduling.model import PendingJob, Policy, Share, Tenant
from st_controller.services import queue_rows
from st_controller.services.durations import Durations
from st_controller.services.policy import running_limits
from st_controller.services.queue_rows import (
    ATTEMPT,
    JobNow,
    contents,
    gangs,
    its_attempt,
    job_columns,
)
from st_controller.store.keyset import later
from st_controller.store.parts import parts
from st_controller.store.schema import (
    Attempt,
    Job,
    JobArray,
    JobDependency,
    QueuePolicy,
    ShareNode,
)
from st_controller.store.schema.jobs import DEPENDENT
from st_shared.protocol.states import AttemptState, JobState

_HAS_SLOTS = or_(Attempt.state != AttemptState.UPLOADING, Attempt.nodes > 1)
_POLICY = TypeAdapter(Policy)


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


def more_wait_than(session: Session, most: int) -> bool:
    """Whether more jobs may be served, now or from a moment that is known; no more are counted."""
    some = select(Job.id).where(_may_be_served()).limit(most + 1).subquery()
    return (session.scalar(select(func.count()).select_from(some)) or 0) > most


def foremost(session: Session, learned: Durations, each: int) -> list[PendingJob]:
    """The first jobs of every line: of one user in one team, of one level and request."""
    whose = (Job.submitted_by, Job.org, Job.team)
    turn = func.row_number().over(
        partition_by=(*whose, Job.level, Job.override, Job.request),
        order_by=(Job.submitted_at, Job.id),
    )
    ranked = select(Job.id, turn.label("turn")).where(_may_be_served()).subquery()
    rows = session.execute(
        job_columns().join(ranked, ranked.c.id == Job.id).where(ranked.c.turn <= each)
    )
    return _all_pending(session, rows, learned)


def waiting_after(
    session: Session, learned: Durations, turn: tuple[float, str] | None, most: int
) -> list[PendingJob]:
    """Up to ``most`` jobs that may be served, in order of submission, after the one of a turn."""
    query = job_columns().where(_may_be_served())
    if turn is not None:
        at = datetime.fromtimestamp(turn[0], UTC)
        query = query.where(later(Job.submitted_at, Job.id, (at, turn[1])))
    rows = session.execute(query.order_by(Job.submitted_at, Job.id).limit(most))
    return _all_pending(session, rows, learned)


def dependents(
    session: Session, learned: Durations, most: int, running: AbstractSet[str]
) -> list[Dependent]:
    """Up to ``most`` jobs that wait for others, in order of submission.

    Of those they wait for, what runs and is not ``running`` for the scheduler only uploads.
    """
    query = job_columns().where(text(DEPENDENT))
    rows = session.execute(query.order_by(Job.submitted_at, Job.id).limit(most))
    jobs = _all_pending(session, rows, learned)
    after = defaultdict[str, set[str]](set)
    for part in parts([job.id for job in jobs]):
        links = session.execute(
            select(JobDependency.job_id, JobDependency.parent_id, Job.state)
            .join(Job, Job.id == JobDependency.parent_id)
            .where(JobDependency.job_id.in_(part), Job.state != JobState.SUCCEEDED)
        )
        for job_id, parent, state in links:
            if state not in queue_rows.HOLDS or parent in running:
                after[job_id].add(parent)
    return [Dependent(job, frozenset(after[job.id])) for job in jobs]


def _may_be_served() -> Any:
    return and_(Job.state == JobState.QUEUED, Job.open_parents == 0)


def _all_pending(
    session: Session, found: Iterable[Row[Any]], learned: Durations
) -> list[PendingJob]:
    rows = list(found)
    datasets = contents(session, rows)
    tenants: dict[tuple[str, str, str], Tenant] = {}
    return [queue_rows.pending(row, datasets, learned, tenants) for row in rows]


def running(session: Session, learned: Durations) -> Iterator[JobNow]:
    """Every job that holds slots."""
    query = job_columns(*ATTEMPT).where(Job.state.in_(queue_rows.HOLDS), its_attempt(), _HAS_SLOTS)
    rows = session.execute(query).all()
    datasets, together = contents(session, rows), gangs(session, rows)
    for row in rows:
        yield queue_rows.running(row, datasets, learned, together)


def jobs(session: Session, ids: Iterable[str], learned: Durations) -> list[JobNow]:
    """How these jobs stand; those that do not exist are left out."""
    wanted = sorted(ids)
    connection = session.connection()
    on_sqlite = connection.dialect.name == "sqlite"
    found: list[JobNow] = []
    for start in range(0, len(wanted), queue_rows.MOST_IDS):
        part = wanted[start : start + queue_rows.MOST_IDS]
        if on_sqlite:
            rows = connection.execute(_JOBS_NOW_SQLITE, {"ids": json.dumps(part)}).all()
        else:
            rows = connection.execute(_JOBS_NOW, {"ids": part}).all()
        datasets, together = contents(session, rows), gangs(session, rows)
        tenants: dict[tuple[str, str, str], Tenant] = {}
        found += [queue_rows.now(row, datasets, learned, together, tenants) for row in rows]
    return found


# Made once: building a statement costs more than running it. Its words are the same for any number
# of ids, so that PostgreSQL plans it once a connection; each job is sought alone, because a plan of
# the time when there were few would go through all of them, however many there are by now.
_EACH_NOW = job_columns(*ATTEMPT).outerjoin(Attempt, its_attempt())
_WANTED = (
    func.unnest(bindparam("ids", type_=ARRAY(String)))
    .table_valued("id")
    .render_derived(name="wanted")
)
_ONE = _EACH_NOW.where(Job.id == _WANTED.c.id).limit(1).lateral("one")
_JOBS_NOW = select(_ONE).select_from(_WANTED.join(_ONE, true()))
_JOBS_NOW_SQLITE = _EACH_NOW.where(
    Job.id.in_(select(column("value", String)).select_from(func.json_each(bindparam("ids"))))
)
