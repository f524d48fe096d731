"""The one place where a job's state is written."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, null, update
from sqlalchemy.orm.attributes import set_committed_value

from st_controller.domain.jobs import may_move
from st_controller.errors import Conflict, IllegalMove
from st_controller.services import dependencies, topics
from st_controller.services.policy import approval_rows, ledger
from st_controller.store import direct
from st_controller.store.bulk import document, insert_all, insert_document, insert_together
from st_controller.store.schema import Job, JobTransition
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState

_JOBS, _TRANSITIONS = insert(Job), insert(JobTransition)
_ASSIGN = (
    update(Job)
    .where(Job.id == bindparam("job_id"), Job.version == bindparam("before"))
    .values(
        state=JobState.ASSIGNED,
        version=Job.version + 1,
        attempts=Job.attempts + 1,
        changed_at=bindparam("now"),
        reason=null(),
        progress=null(),
    )
)


_ASSIGN_ONE = (
    "UPDATE jobs SET state = %s, version = version + 1, attempts = attempts + 1,"
    " changed_at = %s, reason = NULL, progress = NULL WHERE id = %s AND version = %s"
)
_SUCCEED = (
    update(Job)
    .where(Job.id == bindparam("job_id"), Job.version == bindparam("before"))
    .values(
        state=JobState.SUCCEEDED,
        version=bindparam("after"),
        changed_at=bindparam("now"),
        started_at=bindparam("started"),
        finished_at=bindparam("now"),
        reason=null(),
    )
)


_CANCEL = (
    update(Job)
    .where(Job.id == bindparam("job_id"), Job.version == bindparam("before"))
    .values(
        state=JobState.CANCELLED,
        version=bindparam("after"),
        changed_at=bindparam("now"),
        finished_at=bindparam("now"),
        reason=bindparam("why"),
    )
)


_OF_THE_QUEUE = frozenset({JobState.QUEUED, JobState.AWAITING_APPROVAL})


class _Step(NamedTuple):
    """One change of a job's state."""

    job_id: str
    version: int
    before: JobState
    after: JobState
    actor: str


class Queued(NamedTuple):
    """A job as it was when it was locked to be assigned."""

    id: str
    version: int
    submitted_by: str
    org: str
    team: str


def begin_jobs(tx: Transaction, jobs: Sequence[dict[str, Any]], actor: str) -> None:
    """Record new jobs, each with all its columns, in their first state."""
    first = [
        {
            "job_id": job["id"],
            "version": job["version"],
            "state": job["state"],
            "at": tx.now,
            "reason": job["reason"],
        }
        for job in jobs
    ]
    insert_together(tx.session.connection(), (_JOBS, jobs), (_TRANSITIONS, first))
    tx.audit_all(
        actor,
        "job.submitted",
        ((job["id"], {"name": job["name"], "state": job["state"]}) for job in jobs),
    )
    tx.emit_all(
        topics.JOBS,
        "job",
        (
            {"job_id": job["id"], **{name: job[name] for name in ("submitted_by", "org", "team")}}
            for job in jobs
        ),
    )
    topics.wake_queue(tx, [job["id"] for job in jobs])


def assign_jobs(tx: Transaction, jobs: Sequence[Queued], actor: str) -> None:
    """Move jobs that are queued, and locked, to a new attempt each.

    Raises:
        Conflict: one of them was changed since it was read.
    """
    if not jobs:
        return
    connection = tx.session.connection()
    steps = [
        {
            "job_id": job.id,
            "version": job.version + 1,
            "state": JobState.ASSIGNED,
            "at": tx.now,
            "reason": None,
        }
        for job in jobs
    ]
    if connection.dialect.name == "postgresql" and len(jobs) == 1:
        # Not with many: of a list PostgreSQL believes that it is long, and reads all jobs for it.
        noted = insert_document(_TRANSITIONS, tuple(steps[0]))
        values = (document(steps), str(JobState.ASSIGNED), tx.now, jobs[0].id, jobs[0].version)
        done = connection.exec_driver_sql(f"WITH noted AS ({noted}) {_ASSIGN_ONE}", values)
        _must_hit_all(done.rowcount, jobs)
    else:
        read = [{"job_id": job.id, "before": job.version, "now": tx.now} for job in jobs]
        _must_hit_all(connection.execute(_ASSIGN, read).rowcount, jobs)
        insert_all(connection, _TRANSITIONS, steps)
    tx.audit_all(
        actor,
        f"job.{JobState.ASSIGNED}",
        ((job.id, {"before": JobState.QUEUED, "reason": None}) for job in jobs),
    )
    tx.emit_all(
        topics.JOBS,
        "job",
        (topics.change_of(job) for job in jobs),
    )
    for job in jobs:
        tx.wake(topics.job(job.id))


def succeed_all(tx: Transaction, jobs: Sequence[Job], actors: Sequence[str]) -> None:
    """As ``move_job`` to success, by way of running where they were not, for locked jobs.

    ``actors`` says for each job who tells of its success.

    Raises:
        IllegalMove: the transition table has no such step for one of them.
        Conflict: one of them was changed since it was read.
    """
    if not jobs:
        return
    connection = tx.session.connection()
    values, steps = [], []
    for job, actor in zip(jobs, actors, strict=True):
        path = [JobState.SUCCEEDED]
        if job.state == JobState.ASSIGNED:
            path.insert(0, JobState.RUNNING)
        before = JobState(job.state)
        for version, after in enumerate(path, start=job.version + 1):
            if not may_move(before, after):
                raise IllegalMove(f"a job that is {before} cannot become {after}")
            steps.append(_Step(job.id, version, before, after, actor))
            before = after
        row = {"job_id": job.id, "before": job.version, "after": steps[-1].version, "now": tx.now}
        values.append({**row, "started": job.started_at or tx.now})
    _must_hit_all(connection.execute(_SUCCEED, values).rowcount, jobs)
    for job, row in zip(jobs, values, strict=True):
        for name, value in _columns_of_success(row).items():
            set_committed_value(job, name, value)
    ledger.free(tx, jobs)
    _record_all(tx, steps)
    tx.emit_all(topics.JOBS, "job", (topics.change_of(job) for job in jobs))
    for job in jobs:
        tx.wake(topics.job(job.id))
    topics.wake_queue(tx, [job.id for job in jobs])
    dependencies.after_success(tx, jobs)


def cancel_all(tx: Transaction, jobs: Sequence[Job], actor: str, reason: Reason) -> None:
    """As ``move_job`` to cancelled, for locked jobs: of those alone, in a few statements for all.

    Raises:
        IllegalMove: the transition table has no such step for one of them.
        Conflict: one of them was changed since it was read.
    """
    session = tx.session
    parents = dependencies.that_have_children(session, [job.id for job in jobs])
    alone = [job for job in jobs if job.id not in parents and job.state == JobState.QUEUED]
    if alone:
        _cancel_alone(tx, alone, actor, reason)
    for job in jobs:
        if job.state != JobState.CANCELLED:
            move_job(tx, job, JobState.CANCELLED, actor, reason)


def _cancel_alone(tx: Transaction, jobs: Sequence[Job], actor: str, reason: Reason) -> None:
    """Cancel jobs that are queued, for which no other waits."""
    why = reason.model_dump()
    values = [
        {
            "job_id": job.id,
            "before": job.version,
            "after": job.version + 1,
            "now": tx.now,
            "why": why,
        }
        for job in jobs
    ]
    _must_hit_all(tx.session.connection().execute(_CANCEL, values).rowcount, jobs)
    for job in jobs:
        moved = {"state": JobState.CANCELLED, "version": job.version + 1, "changed_at": tx.now}
        for name, value in {**moved, "finished_at": tx.now, "reason": why}.items():
            set_committed_value(job, name, value)
    ledger.free(tx, jobs)
    steps = [_Step(job.id, job.version, JobState.QUEUED, JobState.CANCELLED, actor) for job in jobs]
    _record_all(tx, steps, reason)
    tx.emit_all(topics.JOBS, "job", (topics.change_of(job) for job in jobs))
    for job in jobs:
        tx.wake(topics.job(job.id))
    topics.wake_queue(tx, [job.id for job in jobs])


def move_job(
    tx: Transaction, job: Job, after: JobState, actor: str, reason: Reason | None = None
) -> None:
    """Change the state of ``job``, or refuse.

    What waits for a job that ends is released, held or cancelled with it.

    Raises:
        IllegalMove: the transition table has no such step.
        Conflict: somebody else changed the job since it was read.
    """
    _write(tx, job, after, actor, reason)
    ended = [job] if after.is_final else []
    if after.is_final and after is not JobState.SUCCEEDED:
        dependencies.lock_with_descendants(tx.session, [job.id])
    while ended:
        for child, why in dependencies.after_end(tx, ended.pop()):
            _write(tx, child, JobState.CANCELLED, "system", why)
            ended.append(child)


def reopen_job(
    tx: Transaction, job: Job, actor: str, reason: Reason, after: JobState = JobState.QUEUED
) -> None:
    """Queue a job again that had ended without success, because a person retries it.

    ``after`` is the state that it is let through to: queued, or awaiting approval.

    Raises:
        IllegalMove: it has not ended, or ended well.
        Conflict: somebody else changed the job since it was read.
    """
    _write(tx, job, after, actor, reason, by_retry=True)
    dependencies.after_retry(tx, job)


def _write(
    tx: Transaction,
    job: Job,
    after: JobState,
    actor: str,
    reason: Reason | None,
    *,
    by_retry: bool = False,
) -> None:
    before = JobState(job.state)
    if not may_move(before, after, by_retry=by_retry):
        raise IllegalMove(f"a job that is {before} cannot become {after}")
    moved = {
        "state": after,
        "version": job.version + 1,
        "changed_at": tx.now,
        "reason": reason.model_dump() if reason else None,
        **_stamp(tx, job, after),
    }
    if not direct.write(tx.session, job, moved, only_if={"version": job.version}):
        raise Conflict("the job was changed by somebody else just now", code="version_conflict")
    if after.is_final:
        ledger.free(tx, [job])
    _record(tx, job, reason)
    if before is JobState.AWAITING_APPROVAL:
        approval_rows.close(tx, job.id, after)
    tx.audit(actor, f"job.{after}", job.id, before=before, reason=reason.code if reason else None)
    if after in _OF_THE_QUEUE or after.is_final:
        topics.wake_queue(tx, [job.id])


def _columns_of_success(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": JobState.SUCCEEDED,
        "version": row["after"],
        "changed_at": row["now"],
        "started_at": row["started"],
        "finished_at": row["now"],
        "reason": None,
    }


def _record_all(tx: Transaction, steps: Sequence[_Step], reason: Reason | None = None) -> None:
    why = reason.model_dump() if reason else None
    insert_all(
        tx.session.connection(),
        _TRANSITIONS,
        [
            {
                "job_id": step.job_id,
                "version": step.version,
                "state": step.after,
                "at": tx.now,
                "reason": why,
            }
            for step in steps
        ],
    )
    code = reason.code if reason else None
    for step in steps:
        tx.audit(step.actor, f"job.{step.after}", step.job_id, before=step.before, reason=code)


def _must_hit_all(hit: int, jobs: Sequence[Any]) -> None:
    if hit != len(jobs):
        raise Conflict("a job was changed by somebody else just now", code="version_conflict")


def _stamp(tx: Transaction, job: Job, after: JobState) -> dict[str, datetime | None]:
    """The moment that this move sets, if any."""
    if after in _OF_THE_QUEUE:
        return {"queued_at": tx.now if after is JobState.QUEUED else None}
    if after is JobState.RUNNING and job.started_at is None:
        return {"started_at": tx.now}
    return {"finished_at": tx.now} if after.is_final else {}


def _record(tx: Transaction, job: Job, reason: Reason | None) -> None:
    tx.session.connection().execute(
        _TRANSITIONS,
        {
            "job_id": job.id,
            "version": job.version,
            "state": job.state,
            "at": tx.now,
            "reason": reason.model_dump() if reason else None,
        },
    )
    topics.tell_of(tx, job)
    tx.wake(topics.job(job.id))
