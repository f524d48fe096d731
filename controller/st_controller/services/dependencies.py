"""Jobs that wait for others: their rows, and what the end of a parent does to its children.

Parents are locked before children, and among each the lower id first. A job's id is later than
those of the jobs that it waits for, so all who lock jobs do it in one order.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select, true
from sqlalchemy.orm import Session, defer

from st_controller.domain.dependencies import Parent, why_cancelled, why_waiting
from st_controller.domain.policy.reach import Owner
from st_controller.services import topics
from st_controller.store.bulk import insert_all
from st_controller.store.parts import parts
from st_controller.store.schema import Job, JobDependency
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState

_DEPENDENCIES = insert(JobDependency)
_A_CHILD = (
    select(JobDependency.job_id).where(JobDependency.parent_id == bindparam("parent")).limit(1)
)
_MAY_WAIT = (JobState.QUEUED, JobState.AWAITING_APPROVAL)


def lock_parents(
    session: Session, ids: Iterable[str], *, deleted: bool = True
) -> dict[str, tuple[Parent, Owner]]:
    """The jobs of these ids with their owners; none of them ends before this transaction does.

    Without ``deleted`` those that were deleted are left out.
    """
    found = {}
    for part in parts(sorted(ids)):
        rows = session.execute(
            select(Job.id, Job.name, Job.state, Job.submitted_by, Job.org, Job.team)
            .where(Job.id.in_(part), true() if deleted else Job.deleted_at.is_(None))
            .order_by(Job.id)
            .with_for_update(read=True)
        )
        for row in rows:
            found[row.id] = (_parent(row), Owner(row.submitted_by, row.org, row.team))
    return found


def parent_ids(session: Session, job_id: str) -> list[str]:
    """The jobs that a job waits for, which never change."""
    return list(
        session.scalars(select(JobDependency.parent_id).where(JobDependency.job_id == job_id))
    )


def waiting_child(session: Session, job_id: str) -> str | None:
    """A job that waits for another one; none: none does."""
    children = select(JobDependency.job_id).where(JobDependency.parent_id == job_id)
    query = select(Job.id).where(Job.id.in_(children), Job.state.in_(_MAY_WAIT))
    return session.scalar(query.order_by(Job.id).limit(1))


def attach(tx: Transaction, links: Sequence[tuple[str, str]]) -> None:
    """Record which new job waits for which other: pairs of child and parent."""
    if links:
        rows = [{"job_id": child, "parent_id": parent} for child, parent in links]
        insert_all(tx.session.connection(), _DEPENDENCIES, rows)


def lock_with_descendants(session: Session, job_ids: Sequence[str]) -> None:
    """Lock jobs that are about to end, and all that waits for them, before any is changed.

    So everybody locks them in one order.

    What is submitted meanwhile has a later id than all of these, so it can be locked after them.
    """
    query = select(JobDependency.parent_id).where(JobDependency.parent_id.in_(job_ids)).limit(1)
    if session.scalar(query) is None:
        return
    below = select(JobDependency.job_id).where(JobDependency.parent_id.in_(job_ids))
    tree = below.cte("below", recursive=True)
    tree = tree.union(
        select(JobDependency.job_id).join(tree, JobDependency.parent_id == tree.c.job_id)
    )
    wanted = sorted({*job_ids, *session.scalars(select(tree.c.job_id))})
    for part in parts(wanted):
        session.execute(
            select(Job.id).where(Job.id.in_(part)).order_by(Job.id).with_for_update()
        ).all()


def after_success(tx: Transaction, parents: Sequence[Job]) -> None:
    """Release what waited for jobs that have just succeeded."""
    ids = [parent.id for parent in parents]
    have_children = that_have_children(tx.session, ids)
    for parent_id in ids:
        if parent_id in have_children:
            _look_again(tx, _waiting_children(tx.session, parent_id))


def that_have_children(session: Session, ids: Sequence[str]) -> set[str]:
    """Those of these jobs that others were to wait for, whatever became of these."""
    found: set[str] = set()
    for part in parts(ids):
        query = select(JobDependency.parent_id).where(JobDependency.parent_id.in_(part)).distinct()
        found.update(session.scalars(query))
    return found


def after_end(tx: Transaction, parent: Job) -> list[tuple[Job, Reason]]:
    """Release or hold what waits for a job that has just ended.

    What asked to be cancelled in that case comes back, with the reason to be given.
    """
    if not _has_children(tx.session, parent.id):
        return []
    told = Parent(parent.id, parent.name, JobState(parent.state))
    if not told.is_lost:
        _look_again(tx, _waiting_children(tx.session, parent.id))
        return []
    doomed: list[Job] = []
    held: list[Job] = []
    for child in _waiting_children(tx.session, parent.id):
        (held if child.spec["on_parent_failure"] == "hold" else doomed).append(child)
    _look_again(tx, held)
    return [(child, why_cancelled(told)) for child in doomed]


def after_retry(tx: Transaction, job: Job) -> None:
    """Say anew what a retried job waits for, and what waits for it."""
    _look_again(tx, [job])
    if _has_children(tx.session, job.id):
        _look_again(tx, _waiting_children(tx.session, job.id))


def after_approval(tx: Transaction, job: Job) -> None:
    """Say what a job waits for that no person holds back any more."""
    if job.open_parents:
        _look_again(tx, [job])


def _look_again(tx: Transaction, children: Sequence[Job]) -> None:
    """Count the open parents of locked jobs, and tell everybody."""
    still_open = _open_parents(tx.session, [child.id for child in children])
    for child in children:
        why = why_waiting(still_open[child.id])
        was_waiting = child.open_parents > 0
        child.open_parents = len(still_open[child.id])
        if was_waiting and not child.open_parents and child.state == JobState.QUEUED:
            child.queued_at = tx.now  # from here on it waits for slots, and ages
        if (why or was_waiting) and child.state != JobState.AWAITING_APPROVAL:
            child.reason = why.model_dump() if why else None
        child.changed_at = tx.now
        topics.tell_of(tx, child)
    topics.wake_queue(tx, [child.id for child in children])


def _open_parents(session: Session, job_ids: Sequence[str]) -> dict[str, list[Parent]]:
    found: dict[str, list[Parent]] = defaultdict(list)
    for part in parts(job_ids):
        rows = session.execute(
            select(JobDependency.job_id.label("child"), Job.id, Job.name, Job.state)
            .join(Job, Job.id == JobDependency.parent_id)
            .where(JobDependency.job_id.in_(part), Job.state != JobState.SUCCEEDED)
            .order_by(Job.id)
        )
        for row in rows:
            found[row.child].append(_parent(row))
    return found


def _has_children(session: Session, job_id: str) -> bool:
    return session.scalar(_A_CHILD, {"parent": job_id}) is not None


def _waiting_children(session: Session, job_id: str) -> Sequence[Job]:
    children = select(JobDependency.job_id).where(JobDependency.parent_id == job_id)
    return session.scalars(
        select(Job)
        .where(Job.id.in_(children), Job.state.in_(_MAY_WAIT))
        .order_by(Job.id)
        .options(defer(Job.dataset_pins))
        .with_for_update()
        # Another transaction may have changed what was read before the lock.
        .execution_options(populate_existing=True)
    ).all()


def _parent(row: Any) -> Parent:
    return Parent(row.id, row.name, JobState(row.state))
