"""Steering jobs that are in the queue: their class, an admin's override, another try."""

from collections.abc import Sequence

from st_controller.domain.dependencies import Parent
from st_controller.domain.policy.permissions import CLASS_PERMISSIONS
from st_controller.errors import Conflict, NotPermitted
from st_controller.services import dependencies, drafts, topics
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft, Rules
from st_controller.services.jobs import get_job
from st_controller.services.moves import reopen_job
from st_controller.services.policy import admission
from st_controller.services.visibility import owner
from st_controller.store.schema import Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState
from st_shared.spec.job import JobSpec, Priority

_WAITS = frozenset({JobState.QUEUED, JobState.AWAITING_APPROVAL})


def change_class(tx: Transaction, actor: Actor, job_id: str, priority: Priority) -> Job:
    """Put a waiting job into another class, at once.

    Raises:
        NotPermitted: the class needs a permission, or the job is somebody else's.
        Conflict: the job does not wait.
    """
    job = get_job(tx.session, actor, job_id, lock=True)
    if job.submitted_by != actor.user_id:
        actor.must_cover(owner(job), "queue.manage")
    needed = CLASS_PERMISSIONS.get(priority)
    if needed and not actor.may(needed):
        said = f"the class {priority} needs the permission {needed}"
        raise NotPermitted(said, errors=[FieldProblem(field="priority", message=said)])
    if JobState(job.state) not in _WAITS:
        raise Conflict(
            f"the job is {job.state}; its class changes only while it waits", code="not_waiting"
        )
    before, job.priority, job.level = job.priority, priority.value, priority.level
    _changed(tx, job)
    tx.audit(actor.signature, "job.priority_changed", job.id, before=before, after=priority.value)
    return job


def override(tx: Transaction, actor: Actor, job_id: str, level: int | None) -> Job:
    """Put ``level`` in place of a job's class, or none to give the class back.

    Raises:
        NotPermitted: this needs ``queue.manage``, or for one's own job ``job.bypass.queue``.
        Conflict: the job is over.
    """
    job = get_job(tx.session, actor, job_id, lock=True)
    is_own = job.submitted_by == actor.user_id and actor.may("job.bypass.queue")
    if not is_own and not actor.covers(owner(job), "queue.manage"):
        raise NotPermitted("this needs the permission 'queue.manage'")
    if JobState(job.state).is_final:
        raise Conflict(f"the job is already {job.state}", code="already_final")
    before, job.override = job.override, level
    _changed(tx, job)
    tx.audit(actor.signature, "job.overridden", job.id, before=before, after=level)
    return job


def retry(tx: Transaction, actor: Actor, job_id: str, rules: Rules) -> Job:
    """Queue a job anew that failed or was cancelled: fresh tries, from its last checkpoint.

    Its turn counts from its submission, as before.

    Raises:
        NotPermitted: its kind, or passing quotas, needs what the actor does not hold.
        Conflict: it has not ended, succeeded, or cannot run while a parent has failed.
    """
    # Parents before children, as everywhere: none of them ends while this looks at them.
    parents = dependencies.lock_parents(tx.session, dependencies.parent_ids(tx.session, job_id))
    job = get_job(tx.session, actor, job_id, lock=True)
    actor.must_cover(owner(job), "job.cancel.all")
    _must_be_over(job)
    spec = JobSpec.model_validate(job.spec)
    if spec.scripts() or spec.bypass_quota:
        drafts.must_be_allowed(actor, [Draft("", spec, "")], rules)
    _must_have_a_chance(tx, spec, [parent for parent, _ in parents.values() if parent.is_lost])
    job.tries_used = 0
    job.cancel_requested_at = job.finished_at = None
    job.not_before, job.stop_reason = spec.not_before, None
    admitted = admission.readmit(tx, actor, job, Draft("", spec, ""))
    said = Reason(code="retried", message=f"Queued again by {actor.username}.")
    reopen_job(tx, job, actor.signature, admitted.reason or said, admitted.state)
    return job


def _must_have_a_chance(tx: Transaction, spec: JobSpec, lost: Sequence[Parent]) -> None:
    """Refuse what would be cancelled, or wait for good, because of a parent that is lost."""
    for parent in lost:
        is_deleted = tx.session.get_one(Job, parent.id).deleted_at is not None
        if is_deleted or spec.on_parent_failure == "cancel":
            raise Conflict(
                f"{parent.id} must succeed first, and is {parent.state}",
                code="parent_failed",
                hint="it was deleted: submit this job anew, without it in `after`"
                if is_deleted
                else f"`st retry {parent.id}` first",
            )


def _must_be_over(job: Job) -> None:
    state = JobState(job.state)
    if state in {JobState.FAILED, JobState.CANCELLED}:
        return
    hint = "submit it anew" if state.is_final else "wait until it ends, or `st cancel` it first"
    raise Conflict(
        f"the job is {state}; only what failed or was cancelled is retried",
        code="not_retryable",
        hint=hint,
    )


def _changed(tx: Transaction, job: Job) -> None:
    job.changed_at = tx.now
    topics.tell_of(tx, job)
    topics.wake_queue(tx, [job.id])
