"""Rows of approvals as the rules of the domain, and what becomes of a request with its job."""

from collections.abc import Iterable

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from st_controller.domain.policy.approval_rules import ApprovalRule as Rule
from st_controller.domain.policy.approval_rules import ApprovalRules, Condition
from st_controller.domain.policy.roles import BUILT_IN
from st_controller.store.schema import Approval, ApprovalRule, CustomRole
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import JobState

PENDING = "pending"
_CLOSED = {JobState.QUEUED: "approved", JobState.REJECTED: "rejected"}
_UNKNOWN_ROLE = 100
"""Rank of an approver whose role is gone: somebody must be able to, and it must not be anybody."""


def read(session: Session) -> ApprovalRules:
    """All rules that are enabled."""
    rows = session.scalars(select(ApprovalRule).where(ApprovalRule.enabled)).all()
    ranks = ranks_of(session, {row.approver for row in rows})
    return ApprovalRules(tuple(rule_of(row, ranks[row.approver]) for row in rows))


def ranks_of(session: Session, roles: Iterable[str]) -> dict[str, int]:
    """The rank of each role."""
    wanted = set(roles)
    custom = select(CustomRole.slug, CustomRole.rank).where(CustomRole.slug.in_(wanted))
    made = {slug: rank for slug, rank in session.execute(custom)} if wanted - set(BUILT_IN) else {}  # noqa: C416 - to mypy a Row is no pair
    known = {slug: role.rank for slug, role in BUILT_IN.items()} | made
    return {role: known.get(role, _UNKNOWN_ROLE) for role in wanted}


def rule_of(row: ApprovalRule, rank: int) -> Rule:
    """The rule that a row holds; ``rank`` is that of its approver."""
    return Rule(
        id=row.id,
        name=row.name,
        org=row.org,
        condition=Condition(row.condition),
        amount=row.amount,
        pattern=row.pattern,
        exempt_roles=frozenset(row.exempt_roles),
        exempt_users=frozenset(row.exempt_users),
        approver=row.approver,
        rank=rank,
        quorum=row.quorum,
        expires_after=row.expires_after,
        priority=row.priority,
    )


def close(tx: Transaction, job_id: str, after: JobState) -> None:
    """A job does not wait for approval any more: neither does what asked for it."""
    # What ran out was marked so before; a job that was cancelled needs no answer.
    closed = _CLOSED.get(after, "cancelled")
    tx.session.execute(
        update(Approval)
        .where(Approval.job_id == job_id, Approval.state == PENDING)
        .values(state=closed, decided_at=tx.now)
    )
