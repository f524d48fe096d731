"""The last step of the pass: does somebody have to agree first."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, func, insert, or_, select
from sqlalchemy.orm import Session

from st_controller.domain.policy.approval_rules import (
    ApprovalRule,
    ApprovalRules,
    Condition,
    Facts,
    Need,
    combined,
    judge,
)
from st_controller.domain.policy.deciding import waits_for
from st_controller.domain.policy.resource_rules import Bounds, Subject
from st_controller.services.drafts import Draft
from st_controller.store.bulk import insert_all
from st_controller.store.compiled import Compiled
from st_controller.store.requests import narrowed
from st_controller.store.schema import Approval, Job, User
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState

BYPASS = "job.bypass.approval"
"""The permission to submit without waiting for approval."""

_DAY = timedelta(hours=24)
_COUNTED = frozenset({Condition.FIRST_JOB, Condition.JOBS_PER_DAY_OVER})
_APPROVALS = insert(Approval)

# Made once: building a statement costs more than running it.
_THEIRS = select(Job.id).where(
    Job.submitted_by == bindparam("user"), Job.id != bindparam("besides")
)
_NEVER_LET_THROUGH = or_(
    Job.state.in_([JobState.AWAITING_APPROVAL, JobState.REJECTED]),
    and_(Job.state == JobState.CANCELLED, Job.attempts == 0),
)
_LET_THROUGH = _THEIRS.where(~_NEVER_LET_THROUGH).limit(1)
_RECENT = Compiled(
    select(func.count()).select_from(
        _THEIRS.where(Job.submitted_at > bindparam("since")).limit(bindparam("most")).subquery()
    )
)
_TURN = select(User.id).where(User.id == bindparam("user")).with_for_update(key_share=True)


class Applicant(NamedTuple):
    """Whose jobs are judged."""

    user_id: str
    bypasses: bool
    """Whether they need nobody's approval."""
    retried: str | None = None
    """The job, where it is tried again."""
    waits_its_turn: bool = True
    """Whether submissions of the same user are waited for; nothing is written otherwise."""
    granted: frozenset[str] = frozenset()
    """Rules by which that very job was approved before."""

    def covers(self, need: Need) -> bool:
        """Whether people have agreed to the same before."""
        return all(rule in self.granted for rule, _ in need.rules)


class Judged(NamedTuple):
    """What the rules say of one job."""

    need: Need | None
    warnings: tuple[Reason, ...]


def apply(
    session: Session,
    now: datetime,
    rules: ApprovalRules,
    applicant: Applicant,
    who: Sequence[Subject],
    drafts: Sequence[Draft],
    rows: Sequence[dict[str, Any]],
    costs: Sequence[int],
    further: Sequence[Sequence[Need]] = (),
) -> list[Judged]:
    """Say which new jobs wait for approval, and keep the requests of others from what would.

    ``costs`` are estimates in micro-units; ``further`` are needs that quotas brought up.
    """
    binding = [() if applicant.bypasses else rules.binding(subject) for subject in who]
    is_first, today = _history(session, now, applicant, _counting(binding))
    judged = []
    for index, (found, draft, row) in enumerate(zip(binding, drafts, rows, strict=True)):
        brought_up = further[index] if further and not applicant.bypasses else ()
        needs = [need for need in brought_up if not applicant.covers(need)]
        told: tuple[Reason, ...] = ()
        if found:
            facts = _facts(draft, row, costs[index])
            opinion = judge(found, facts._replace(is_first=is_first, jobs_today=today + index + 1))
            if opinion.need and not applicant.covers(opinion.need):
                needs.append(opinion.need)
            told = _narrow(row, {"accelerator": opinion.accelerator, "provider": opinion.provider})
        judged.append(Judged(combined(needs), told))
    return judged


def granted(session: Session, job_id: str) -> frozenset[str]:
    """Rules by which a job was approved before."""
    rows = session.scalars(
        select(Approval.reasons).where(Approval.job_id == job_id, Approval.state == "approved")
    )
    return frozenset(rule for reasons in rows for rule, _ in reasons)


def reason_of(need: Need, given: int = 0) -> Reason:
    """Why a job waits that needs this."""
    sentences = [sentence for _, sentence in need.rules]
    return Reason(
        code="awaiting_approval",
        message=waits_for(need.approver, need.quorum, given, sentences),
        hint="`st approvals` lists what waits; somebody of that role runs `st approve ID`",
    )


def record(
    tx: Transaction, requested_by: str, job_ids: Sequence[str], needs: Sequence[Need | None]
) -> None:
    """Write down what jobs wait for, once their rows are there."""
    made = [
        {
            "id": new_id("apr"),
            "job_id": job_id,
            "requested_by": requested_by,
            "state": "pending",
            "approver": need.approver,
            "rank": need.rank,
            "quorum": need.quorum,
            "reasons": [list(rule) for rule in need.rules],
            "created_at": tx.now,
            "expires_at": tx.now + timedelta(seconds=need.expires_after),
            "decided_at": None,
        }
        for job_id, need in zip(job_ids, needs, strict=True)
        if need
    ]
    insert_all(tx.session.connection(), _APPROVALS, made)


def _facts(draft: Draft, row: Mapping[str, Any], cost: int) -> Facts:
    resources = draft.spec.resources
    return Facts(
        cost=cost,
        slots=row["slots"],
        time_limit=draft.spec.time_limit,
        accelerator=resources.accelerator,
        provider=resources.provider,
        config=row["config"] or "",
        family=row["family"],
    )


def _counting(binding: Sequence[Sequence[ApprovalRule]]) -> list[ApprovalRule]:
    """The rules for which jobs must be counted."""
    different = {id(found): found for found in binding}.values()
    return [rule for found in different for rule in found if rule.condition in _COUNTED]


def _history(
    session: Session, now: datetime, applicant: Applicant, counting: Sequence[ApprovalRule]
) -> tuple[bool, int]:
    """Whether nothing of this user was ever let through, and how much they submitted in a day."""
    if not counting:
        return False, 0
    asked = {rule.condition for rule in counting}
    first, daily = Condition.FIRST_JOB in asked, Condition.JOBS_PER_DAY_OVER in asked
    # Submissions of one user take turns here, so that two at once do not both find room.
    if applicant.waits_its_turn and session.connection().dialect.name == "postgresql":
        session.execute(_TURN, {"user": applicant.user_id}).all()
    most = max(rule.amount for rule in counting)
    asked_of = {
        "user": applicant.user_id,
        "besides": applicant.retried or "",
        "since": now - _DAY,
        "most": min(most, 10**6) + 1,
    }
    connection = session.connection()
    is_first = first and connection.execute(_LET_THROUGH, asked_of).first() is None
    today = _RECENT.run(connection, asked_of).scalar_one() if daily else 0
    return is_first, today


def _narrow(row: dict[str, Any], bounds: Mapping[str, Bounds]) -> tuple[Reason, ...]:
    found = {name: bound for name, bound in bounds.items() if bound.deny}
    if not found:
        return ()
    row["request"] = narrowed(row["request"], {name: bound.group for name, bound in found.items()})
    return tuple(
        Reason(
            code="narrowed",
            message=f"It is given no {name} like {', '.join(bound.deny)}: that needs approval.",
            hint=f"write it as `resources.{name}` to ask for approval",
        )
        for name, bound in found.items()
    )
