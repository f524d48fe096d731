"""Submitting, reading and cancelling jobs."""

import hashlib
import json
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.domain.attempts import LIVE
from st_controller.errors import Conflict, InvalidRequest, NotFound
from st_controller.services import endings, topics
from st_controller.services.actor import Actor
from st_controller.services.moves import begin_job, move_job
from st_controller.services.paging import decode_cursor, encode_cursor
from st_controller.store.schema import Attempt, Dataset, IdempotencyKey, Job
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import AttemptState, JobState, Outcome
from st_shared.protocol.worker import StopOrder
from st_shared.spec.job import JobSpec
from st_shared.spec.reading import SpecProblem, SpecProblems, validate_job


def submit(
    tx: Transaction, actor: Actor, document: object, idempotency_key: str | None = None
) -> tuple[Job, bool]:
    """Queue a job; the second value is whether it is new.

    The same key with the same body gives the job of the first call.

    Raises:
        InvalidRequest: the specification is wrong; every mistake is named.
        Conflict: the key was used with another body.
    """
    spec = _checked(document)
    pins = _pin_datasets(tx.session, spec)
    job = _new_job(tx, actor, spec, pins)
    if idempotency_key is not None:
        earlier = _claim_key(tx, actor, idempotency_key, document, job.id)
        if earlier is not None:
            return earlier, False
    begin_job(tx, job, actor.signature)
    return job, True


def _checked(document: object) -> JobSpec:
    try:
        return validate_job(document)
    except SpecProblems as refused:
        raise _invalid(refused.problems) from None


def _invalid(problems: list[SpecProblem]) -> InvalidRequest:
    count = len(problems)
    return InvalidRequest(
        f"the job file has {count} mistake{'s' * (count > 1)}",
        code="invalid_spec",
        hint="mend the fields listed and submit again; `st-train validate FILE` checks a file",
        errors=[FieldProblem(field=item.field, message=item.message) for item in problems],
    )


def _pin_datasets(session: Session, spec: JobSpec) -> dict[str, Any]:
    """What each dataset name stands for now, so that every attempt trains on the same content."""
    pins: dict[str, Any] = {}
    problems: list[SpecProblem] = []
    for place, dataset in enumerate(spec.training.datasets):
        if dataset.name is None:
            continue
        found = session.scalar(
            select(Dataset.id).where(Dataset.name == dataset.name, Dataset.current)
        )
        if found is None:
            said = f"no dataset is registered as {dataset.name!r}; `st datasets push` registers one"
            problems.append(SpecProblem(f"training.datasets.{place}.name", said))
        else:
            pins[dataset.name] = found
    if problems:
        raise _invalid(problems)
    return pins


def _new_job(tx: Transaction, actor: Actor, spec: JobSpec, pins: dict[str, Any]) -> Job:
    return Job(
        id=new_id("job"),
        name=spec.name,
        family=spec.training.model.family,
        spec=spec.model_dump(mode="json"),
        dataset_pins=pins,
        priority=spec.priority,
        level=spec.priority.level,
        state=JobState.QUEUED,
        version=1,
        cancel_requested_at=None,
        submitted_by=actor.user_id,
        submitted_at=tx.now,
        queued_at=tx.now,
        started_at=None,
        finished_at=None,
        max_attempts=spec.retry.max_attempts,
        attempts=0,
        tries_used=0,
        reason=None,
        progress=None,
        checkpoint_step=None,
        checkpoint_id=None,
    )


def _claim_key(
    tx: Transaction, actor: Actor, key: str, document: object, job_id: str
) -> Job | None:
    """Take the key for a new job, or give the job that it already made."""
    body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(body).hexdigest()
    taken = tx.session.get(IdempotencyKey, (actor.user_id, key))
    if taken is None:
        fresh = IdempotencyKey(
            user_id=actor.user_id, key=key, body_sha256=digest, job_id=job_id, created_at=tx.now
        )
        try:
            with tx.session.begin_nested():
                tx.session.add(fresh)
        except IntegrityError:
            # A twin was faster; its transaction is over, or the insertion would still wait for it.
            taken = tx.session.get_one(IdempotencyKey, (actor.user_id, key))
        else:
            return None
    if taken.body_sha256 != digest:
        raise Conflict(
            "this Idempotency-Key was used with another body",
            code="idempotency_mismatch",
            hint="use a new key for a new job",
        )
    return get_job(tx.session, actor, taken.job_id)


def get_job(session: Session, actor: Actor, job_id: str, *, lock: bool = False) -> Job:
    """A job that the actor may see, or ``NotFound``."""
    query = select(Job).where(Job.id == job_id)
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    actor.must_reach(job.submitted_by, f"job {job_id}", "job.view.all")
    return job


def list_jobs(
    session: Session,
    actor: Actor,
    *,
    states: list[JobState] | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Job], str | None]:
    """The jobs that the actor may see, newest first, and the cursor of the next page."""
    query = select(Job).order_by(Job.submitted_at.desc(), Job.id.desc()).limit(limit + 1)
    if not actor.may("job.view.all"):
        query = query.where(Job.submitted_by == actor.user_id)
    if states:
        query = query.where(Job.state.in_(states))
    if cursor:
        at, after_id = decode_cursor(cursor)
        query = query.where(
            or_(Job.submitted_at < at, and_(Job.submitted_at == at, Job.id < after_id))
        )
    found = list(session.scalars(query))
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], encode_cursor(last.submitted_at, last.id)


def cancel(tx: Transaction, actor: Actor, job_id: str) -> Job:
    """Ask for the end of a job; a waiting one ends at once, a running one at its worker's word.

    Raises:
        Conflict: the job is over in another way.
    """
    job = get_job(tx.session, actor, job_id, lock=True)
    actor.must_reach(job.submitted_by, f"job {job_id}", "job.cancel.all")
    state = JobState(job.state)
    if state is JobState.CANCELLED or (job.cancel_requested_at and not state.is_final):
        return job
    if state.is_final:
        raise Conflict(f"the job is already {state}", code="already_final")
    job.cancel_requested_at = tx.now
    tx.audit(actor.signature, "job.cancel_requested", job.id)
    live = _live_attempt(tx.session, job_id)
    if live is None:
        said = Reason(code="cancelled", message=f"Cancelled by {actor.username}.")
        move_job(tx, job, JobState.CANCELLED, actor.signature, said)
    elif live.state == AttemptState.OFFERED:
        endings.end_attempt(tx, live, job, Outcome.CANCELLED, actor=actor.signature)
    else:
        live.stop = "cancel"
        order = StopOrder(attempt_id=live.id, reason="cancel")
        tx.emit(topics.worker(live.worker_id), "stop", order.model_dump(mode="json"))
        tx.emit(topics.JOBS, "job", {"job_id": job.id, "submitted_by": job.submitted_by})
    return job


def _live_attempt(session: Session, job_id: str) -> Attempt | None:
    return session.scalar(
        select(Attempt).where(Attempt.job_id == job_id, Attempt.state.in_(LIVE)).with_for_update()
    )
