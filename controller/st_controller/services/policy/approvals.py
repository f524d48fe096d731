"""Jobs that wait for approval: who may decide, what was said, and what runs out.

A job's row is locked before that of its approval, by everybody; of many jobs the lower id first.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from st_controller.domain.policy.approval_rules import Need
from st_controller.domain.policy.deciding import Refused, Standing, why_not_decide
from st_controller.errors import Conflict, NotFound, NotPermitted
from st_controller.services import dependencies, topics
from st_controller.services.actor import Actor
from st_controller.services.moves import move_job
from st_controller.services.policy.approval_rows import PENDING
from st_controller.services.policy.approval_step import reason_of
from st_controller.services.visibility import own, owner, within
from st_controller.store.schema import Approval, ApprovalDecision, Job, User
from st_controller.store.transaction import Transaction
from st_shared.protocol.policy_approvals import (
    ApprovalState,
    ApprovalView,
    Decision,
    DecisionView,
)
from st_shared.protocol.resources import Page, Reason
from st_shared.protocol.states import JobState

DECIDE = "queue.approve"
"""The permission to approve and reject."""
MOST_EXPIRED = 50
"""Jobs that are rejected in one transaction because nobody decided in time."""

_FORBIDDEN = frozenset({"own_job", "rank_too_low"})


def decide(tx: Transaction, actor: Actor, ref: str, said: Decision) -> ApprovalView:
    """Approve or reject a job; ``ref`` is the id of the approval, or of the job.

    Raises:
        NotFound: there is none, or the actor's reach does not cover the job.
        NotPermitted: it is the actor's own job, or their role is too low.
        Conflict: it is decided already, too late, or the actor has said something before.
    """
    approval, job = _locked(tx.session, ref)
    if not actor.reaches(owner(job), DECIDE):
        raise NotFound(f"there is no approval {ref}")
    before = _said(tx.session, [approval.id])[approval.id]
    refused = why_not_decide(
        _standing(approval, job, before), user_id=actor.user_id, rank=actor.rank, now=tx.now
    )
    if refused:
        raise _refusal(refused)
    tx.session.add(
        ApprovalDecision(
            approval_id=approval.id,
            user_id=actor.user_id,
            decision=said.decision,
            reason=said.reason,
            at=tx.now,
        )
    )
    tx.session.flush()
    given = sum(each.decision == "approve" for each, _ in before) + (said.decision == "approve")
    details = {"job": job.id, "reason": said.reason, "given": given, "of": approval.quorum}
    past = {"approve": "approved", "reject": "rejected"}[said.decision]
    tx.audit(actor.signature, f"approval.{past}", approval.id, **details)
    _follow(tx, actor, approval, job, said, given)
    (view,) = views(tx.session, actor, [approval], tx.now)
    return view


def get(session: Session, actor: Actor, ref: str, now: datetime) -> ApprovalView:
    """An approval that the actor may see, by its id or that of the job."""
    query = select(Approval).where(or_(Approval.id == ref, Approval.job_id == ref))
    found = session.scalars(
        query.join(Job, Job.id == Approval.job_id)
        .where(_visible(actor))
        .order_by(Approval.created_at.desc())
        .limit(1)
    ).first()
    if found is None:
        raise NotFound(f"there is no approval {ref}")
    (view,) = views(session, actor, [found], now)
    return view


def list_approvals(
    session: Session,
    actor: Actor,
    now: datetime,
    *,
    state: ApprovalState | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ApprovalView]:
    """The approvals that the actor may see, oldest first."""
    query = (
        select(Approval)
        .join(Job, Job.id == Approval.job_id)
        .where(_visible(actor))
        .order_by(Approval.id)
        .limit(limit + 1)
    )
    if state:
        query = query.where(Approval.state == state)
    if cursor:
        query = query.where(Approval.id > cursor)
    found = list(session.scalars(query))
    more = found[limit - 1].id if len(found) > limit else None
    return Page(items=views(session, actor, found[:limit], now), next_cursor=more)


def are_late(session: Session, now: datetime) -> bool:
    """Whether the time of some approval is over."""
    return session.scalar(_late(now).with_only_columns(Approval.id).limit(1)) is not None


def expire(tx: Transaction) -> int:
    """Reject jobs for which nobody decided in time, some of them; how many."""
    due = _late(tx.now).with_only_columns(Approval.job_id).order_by(Approval.expires_at)
    ids = sorted(tx.session.scalars(due.limit(MOST_EXPIRED)))
    done = 0
    for job_id in ids:
        approval, job = _locked(tx.session, job_id)
        if approval.state != PENDING or job.state != JobState.AWAITING_APPROVAL:
            continue
        approval.state, approval.decided_at = "expired", tx.now
        tx.session.flush()
        why = Reason(
            code="approval_expired",
            message="Rejected, because nobody approved it in time.",
            hint="submit it anew, and tell whoever approves",
        )
        tx.audit("system", "approval.expired", approval.id, job=job.id)
        move_job(tx, job, JobState.REJECTED, "system", why)
        done += 1
    return done


def views(
    session: Session, actor: Actor, found: Sequence[Approval], now: datetime
) -> list[ApprovalView]:
    """Approvals as people see them."""
    jobs = {
        job.id: job
        for job in session.scalars(select(Job).where(Job.id.in_([a.job_id for a in found])))
    }
    wanted = [approval.requested_by for approval in found]
    users = select(User.id, User.username).where(User.id.in_(wanted))
    names = {user_id: name for user_id, name in session.execute(users)}  # noqa: C416 - to mypy a Row is no pair
    said = _said(session, [approval.id for approval in found])
    return [
        _view(actor, approval, jobs[approval.job_id], names, said[approval.id], now)
        for approval in found
    ]


def _follow(
    tx: Transaction, actor: Actor, approval: Approval, job: Job, said: Decision, given: int
) -> None:
    """What follows from a decision."""
    if said.decision == "reject":
        why = Reason(
            code="rejected",
            message=f"Rejected by {actor.username}: {said.reason}",
            hint="mend what was said, and submit it anew",
        )
        move_job(tx, job, JobState.REJECTED, actor.signature, why)
    elif given >= approval.quorum:
        move_job(tx, job, JobState.QUEUED, actor.signature)
        dependencies.after_approval(tx, job)
    else:
        job.reason = reason_of(_need(approval), given).model_dump()
        job.changed_at = tx.now
        topics.tell_of(tx, job)
    tx.session.flush()
    tx.session.refresh(approval)


def _locked(session: Session, ref: str) -> tuple[Approval, Job]:
    """The newest approval of this id, or of the job of this id, and the job; both locked."""
    newest = (
        select(Approval.id, Approval.job_id)
        .where(or_(Approval.id == ref, Approval.job_id == ref))
        .order_by(Approval.created_at.desc(), Approval.id.desc())
        .limit(1)
    )
    row = session.execute(newest).one_or_none()
    if row is None:
        raise NotFound(f"there is no approval {ref}")
    fresh: dict[str, Any] = {"populate_existing": True}
    locked = select(Job).where(Job.id == row.job_id).with_for_update().execution_options(**fresh)
    job = session.scalars(locked).one()
    approval = session.get_one(Approval, row.id, with_for_update=True, populate_existing=True)
    return approval, job


def _late(now: datetime) -> Any:
    return select(Approval).where(Approval.state == PENDING, Approval.expires_at <= now)


def _visible(actor: Actor) -> Any:
    """Approvals of jobs that are the actor's own, or that they may decide on or look after."""
    covered = or_(
        own(actor, Job),
        *(within(actor, name, Job) for name in (DECIDE, "admin.approve") if actor.may(name)),
    )
    return and_(covered, Job.deleted_at.is_(None))


def _said(
    session: Session, approval_ids: Sequence[str]
) -> dict[str, list[tuple[ApprovalDecision, str]]]:
    rows = session.execute(
        select(ApprovalDecision, User.username)
        .join(User, User.id == ApprovalDecision.user_id)
        .where(ApprovalDecision.approval_id.in_(approval_ids))
        .order_by(ApprovalDecision.at, ApprovalDecision.user_id)
    )
    found: dict[str, list[tuple[ApprovalDecision, str]]] = defaultdict(list)
    for decision, name in rows:
        found[decision.approval_id].append((decision, name))
    return found


def _standing(
    approval: Approval, job: Job, said: Sequence[tuple[ApprovalDecision, str]]
) -> Standing:
    return Standing(
        is_pending=approval.state == PENDING and job.state == JobState.AWAITING_APPROVAL,
        expires_at=approval.expires_at,
        rank=approval.rank,
        approver=approval.approver,
        requested_by=approval.requested_by,
        submitted_by=job.submitted_by,
        said=frozenset(decision.user_id for decision, _ in said),
    )


def _refusal(refused: Refused) -> NotPermitted | Conflict:
    kind = NotPermitted if refused.code in _FORBIDDEN else Conflict
    return kind(refused.message, code=refused.code)


def _need(approval: Approval) -> Need:
    return Need(
        approval.approver,
        approval.rank,
        approval.quorum,
        0.0,
        tuple((rule, said) for rule, said in approval.reasons),
    )


def _view(
    actor: Actor,
    approval: Approval,
    job: Job,
    names: dict[str, str],
    said: Sequence[tuple[ApprovalDecision, str]],
    now: datetime,
) -> ApprovalView:
    refused = why_not_decide(
        _standing(approval, job, said), user_id=actor.user_id, rank=actor.rank, now=now
    )
    may = actor.may(DECIDE) and actor.reaches(owner(job), DECIDE)
    return ApprovalView(
        id=approval.id,
        job_id=job.id,
        job_name=job.name,
        org=job.org,
        team=job.team,
        requested_by=names[approval.requested_by],
        state=approval.state,
        approver=approval.approver,
        quorum=approval.quorum,
        reasons=[sentence for _, sentence in approval.reasons],
        decisions=[
            DecisionView(user=name, decision=each.decision, reason=each.reason, at=each.at)
            for each, name in said
        ],
        created_at=approval.created_at,
        expires_at=approval.expires_at,
        decided_at=approval.decided_at,
        may_decide=may and refused is None,
        slots=job.slots,
        accelerator=job.spec["resources"]["accelerator"],
        family=job.family,
    )
