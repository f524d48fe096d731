"""Job arrays: many variations of one job, submitted, watched and ended together."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from st_controller.domain import sweeps
from st_controller.domain.attempts import LIVE
from st_controller.domain.sweeps import BadSweep, Change
from st_controller.errors import NotFound
from st_controller.services import drafts, idempotency, jobs, submission
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft, Rules
from st_controller.services.paging import decode_cursor, encode_cursor
from st_controller.services.visibility import owner, within
from st_controller.store.keyset import begins, earlier
from st_controller.store.schema import Attempt, Job, JobArray
from st_controller.store.transaction import QUEUE_RULES, Transaction
from st_shared.ids import new_id
from st_shared.protocol.resources import JobArrayRequest, Reason
from st_shared.protocol.states import JobState
from st_shared.spec.reading import SpecProblem, SpecProblems

_MOST_TEXT = 64 * 2**20
"""Bytes of all specifications of one array together."""

_OVER = [state for state in JobState if state.is_final]


def check(actor: Actor, request: JobArrayRequest, rules: Rules) -> list[Draft]:
    """The jobs of an array as drafts, or a refusal that names every mistake once."""
    try:
        sets = _sets(request)
        documents = [_document(request, index, changes) for index, changes in enumerate(sets)]
    except BadSweep as wrong:
        raise drafts.invalid([SpecProblem(wrong.field, wrong.message)]) from None
    found: list[Draft] = []
    problems: dict[str, SpecProblem] = {}
    text = 0
    for document, changes in zip(documents, sets, strict=True):
        text += len(drafts.canonical(document))
        if text > _MOST_TEXT:  # before more of them are read, which takes the longer the larger
            problems["spec"] = SpecProblem("spec", f"{len(sets)} jobs of this size are too much")
            break
        try:
            found.append(drafts.checked(document, "spec."))
        except SpecProblems as refused:
            for problem in refused.problems:
                told = _placed(problem, changes)
                # Many jobs share a mistake; their names differ, and say no more than the first.
                problems.setdefault("name" if told.field == "name" else str(told), told)
    if problems:
        raise drafts.invalid(list(problems.values()))
    drafts.must_be_allowed(actor, found, rules)
    return found


def submit(
    tx: Transaction,
    actor: Actor,
    request: JobArrayRequest,
    batch: Sequence[Draft],
    idempotency_key: str | None = None,
) -> tuple[JobArray, bool, list[Reason]]:
    """Queue all jobs of an array, or none; whether it is new, and what the policy says of it.

    Raises:
        InvalidRequest: a dataset or parent that is named does not exist.
        Conflict: the key was used with another body.
    """
    array_id = new_id("arr")
    if idempotency_key is not None:
        body = f"job-arrays\n{drafts.canonical(request.model_dump(mode='json'))}"
        earlier = idempotency.take(tx, actor, idempotency_key, body, {"array": array_id})
        if earlier is not None:
            return get_array(tx.session, actor, earlier["array"]), False, []
    array = JobArray(
        id=array_id,
        name=_name(request),
        org=actor.org,
        team=batch[0].spec.team or actor.team,
        submitted_by=actor.user_id,
        submitted_at=tx.now,
        size=len(batch),
        max_running=request.max_running,
    )
    tx.session.add(array)
    tx.session.flush()
    ids = sorted(new_id("job") for _ in batch)
    stored = submission.store(tx, actor, batch, ids, array_id=array_id)
    tx.audit(actor.signature, "array.submitted", array_id, name=array.name, size=array.size)
    if array.max_running is not None:
        tx.wake(QUEUE_RULES)
    return array, True, list(dict.fromkeys(why for done in stored for why in done.warnings))


def get_array(session: Session, actor: Actor, array_id: str, *, lock: bool = False) -> JobArray:
    """An array that the actor may see, or ``NotFound``."""
    array = session.get(JobArray, array_id, with_for_update=lock or None)
    if array is None:
        raise NotFound(f"there is no job array {array_id}")
    actor.must_reach(owner(array), f"job array {array_id}", "job.view.all")
    return array


def list_arrays(
    session: Session,
    actor: Actor,
    *,
    beginning: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[JobArray], str | None]:
    """The arrays that the actor may see, newest first, and the cursor of the next page."""
    query = select(JobArray).order_by(JobArray.submitted_at.desc(), JobArray.id.desc())
    query = query.where(within(actor, "job.view.all", JobArray))
    if beginning:
        query = query.where(begins(JobArray.id, beginning))
    if cursor:
        query = query.where(earlier(JobArray.submitted_at, JobArray.id, decode_cursor(cursor)))
    found = list(session.scalars(query.limit(limit + 1)))
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], encode_cursor(last.submitted_at, last.id)


def counts(session: Session, array_ids: Sequence[str]) -> dict[str, dict[JobState, int]]:
    """How many jobs of each array are in which state."""
    rows = session.execute(
        select(Job.array_id, Job.state, func.count())
        .where(Job.array_id.in_(array_ids), Job.deleted_at.is_(None))
        .group_by(Job.array_id, Job.state)
    )
    found: dict[str, dict[JobState, int]] = defaultdict(dict)
    for array_id, state, count in rows:
        found[str(array_id)][JobState(state)] = count
    return found


def cancel(tx: Transaction, actor: Actor, array_id: str) -> JobArray:
    """Ask for the end of all jobs of an array that are not over."""
    array = get_array(tx.session, actor, array_id)
    actor.must_cover(owner(array), "job.cancel.all")
    # All jobs, then all attempts, each in one order: nobody who locks fewer can stand crosswise.
    waiting = tx.session.scalars(
        select(Job)
        .where(Job.array_id == array_id, Job.state.not_in(_OVER))
        .order_by(Job.id)
        .with_for_update()
    ).all()
    attempts = tx.session.scalars(
        select(Attempt)
        .join(Job, Job.id == Attempt.job_id)
        .where(Job.array_id == array_id, Job.state.not_in(_OVER), Attempt.number == Job.attempts)
        .order_by(Attempt.job_id, Attempt.id)
        .with_for_update(of=Attempt)
    ).all()
    live: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.state in LIVE:
            live[attempt.job_id].append(attempt)
    stopped = [job for job in waiting if job.cancel_requested_at is None]
    jobs.stop_waiting(tx, actor, [job for job in stopped if not live[job.id]])
    for job in stopped:
        if live[job.id]:
            jobs.stop(tx, actor, job, live[job.id])
    tx.audit(actor.signature, "array.cancelled", array_id, jobs=len(stopped))
    return array


def cap(tx: Transaction, actor: Actor, array_id: str, max_running: int | None) -> JobArray:
    """Let at most so many jobs of an array hold slots at one time; none: as many as fit."""
    array = get_array(tx.session, actor, array_id, lock=True)
    actor.must_cover(owner(array), "job.cancel.all")
    before, array.max_running = array.max_running, max_running
    tx.audit(actor.signature, "array.capped", array_id, before=before, after=max_running)
    tx.wake(QUEUE_RULES)
    return array


def _sets(request: JobArrayRequest) -> list[list[Change]]:
    if (request.grid is None) == (request.entries is None):
        raise BadSweep("grid", "give either `grid` or `list`")
    if request.grid is not None:
        return sweeps.of_grid(request.grid)
    return sweeps.of_list(request.entries or ())


def _document(request: JobArrayRequest, index: int, changes: Sequence[Change]) -> dict[str, Any]:
    for change in changes:
        if change.path == "name":
            raise BadSweep(change.place, "the jobs are named after the array; leave it out")
    document = sweeps.changed(request.spec, changes)
    return {**document, "name": f"{_name(request)}-{index:03d}"}


def _name(request: JobArrayRequest) -> str:
    """The name given, else that of the specification."""
    name: Any = request.name or request.spec.get("name")
    if not isinstance(name, str) or not name:
        raise BadSweep("name", "required, but missing; add it, or a name to `spec`")
    if len(name) > 116:
        raise BadSweep("name", "should have at most 116 characters, for the numbers of the jobs")
    return name


def _placed(problem: SpecProblem, changes: Sequence[Change]) -> SpecProblem:
    """The mistake at the change that made it, else at the specification."""
    for change in changes:
        if problem.field == change.path or problem.field.startswith(f"{change.path}."):
            return SpecProblem(
                f"{change.place}{problem.field.removeprefix(change.path)}", problem.message
            )
        # A path that leads past the end of the specification: the unknown key is above it.
        if change.path.startswith(f"{problem.field}.") and problem.field:
            return SpecProblem(change.place, f"{problem.field}: {problem.message}")
    field = "name" if problem.field == "name" else f"spec.{problem.field}".removesuffix(".")
    return SpecProblem(field, problem.message)
