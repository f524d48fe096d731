"""Rules for approval as people make them."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.approval_rules import Condition
from st_controller.domain.policy.resource_rules import Subject
from st_controller.domain.policy.roles import BUILT_IN
from st_controller.services.actor import Actor
from st_controller.services.policy.approval_rows import rule_of
from st_controller.services.policy.governing import must_exist, must_govern
from st_controller.services.policy.rule_keeping import RuleKind, page_of
from st_controller.store.schema import ApprovalRule, CustomRole
from st_controller.store.transaction import Transaction
from st_shared.protocol.policy_approvals import ApprovalRuleRequest, ApprovalRuleView
from st_shared.protocol.resources import Page

MANAGE = "admin.approve"
"""The permission to make such rules."""


def create(tx: Transaction, actor: Actor, wanted: ApprovalRuleRequest) -> ApprovalRuleView:
    """Make a rule.

    Raises:
        NotPermitted: it reaches farther than the actor, or binds the actor or one of their rank.
        InvalidRequest: a role, user or organisation that it names does not exist.
    """
    return view(_KIND.create(tx, actor, wanted))


def replace(
    tx: Transaction, actor: Actor, rule_id: str, wanted: ApprovalRuleRequest
) -> ApprovalRuleView:
    """Put other content in place of a rule's; jobs that wait already wait by the old one.

    The refusals are those of ``create``, of the rule as it was and as it is to be; and NotFound.
    """
    return view(_KIND.replace(tx, actor, rule_id, wanted))


def remove(tx: Transaction, actor: Actor, rule_id: str) -> None:
    """Take a rule away."""
    _KIND.remove(tx, actor, rule_id)


def list_rules(
    session: Session, actor: Actor, *, cursor: str | None, limit: int
) -> Page[ApprovalRuleView]:
    """The rules that the actor may see, oldest first: those that bind them, or all of theirs."""
    query = select(ApprovalRule).order_by(ApprovalRule.id)
    if cursor:
        query = query.where(ApprovalRule.id > cursor)
    query = _KIND.in_sight(query, actor)
    if actor.may(MANAGE):
        found = list(session.scalars(query.limit(limit + 1)))
    else:
        rows = session.scalars(query.where(ApprovalRule.enabled))
        found = [row for row in rows if rule_of(row, 0).binds(_subject(actor))]
    shown, more = page_of(found, limit)
    return Page(items=[view(row) for row in shown], next_cursor=more)


def view(row: ApprovalRule) -> ApprovalRuleView:
    """A rule as people see it."""
    condition = Condition(row.condition)
    return ApprovalRuleView(
        id=row.id,
        changed_at=row.changed_at,
        **{
            **{name: getattr(row, name) for name in ApprovalRuleRequest.model_fields},
            "amount": row.amount if condition.has_amount else None,
            "pattern": row.pattern if condition.has_glob else None,
        },
    )


def _must_be_theirs(session: Session, actor: Actor, row: ApprovalRule) -> None:
    rule = rule_of(row, 0)
    must_govern(
        session,
        actor,
        row.org,
        binds_them=rule.binds(_subject(actor)),
        roles=_bound(session, row),
    )


def _bound(session: Session, row: ApprovalRule) -> Iterable[str]:
    """The roles whose jobs it looks at."""
    if row.condition == Condition.ROLE:
        return {row.pattern} - set(row.exempt_roles)
    made = session.scalars(select(CustomRole.slug))
    return {*BUILT_IN, *made} - set(row.exempt_roles)


def _must_make_sense(session: Session, wanted: ApprovalRuleRequest) -> None:
    if wanted.org is not None:
        must_exist(session, "org", wanted.org, None, "org")
    must_exist(session, "role", wanted.approver, None, "approver")
    for index, role in enumerate(wanted.exempt_roles):
        must_exist(session, "role", role, None, f"exempt_roles.{index}")
    for index, name in enumerate(wanted.exempt_users):
        must_exist(session, "user", name, wanted.org, f"exempt_users.{index}")
    if wanted.condition == "role":
        must_exist(session, "role", wanted.pattern or "", None, "pattern")


def _subject(actor: Actor) -> Subject:
    return Subject(actor.org, actor.team, actor.username, actor.role)


def _columns(wanted: ApprovalRuleRequest) -> dict[str, Any]:
    return {
        **wanted.model_dump(),
        "amount": wanted.amount or 0,
        "pattern": wanted.pattern or "",
        "exempt_roles": sorted(set(wanted.exempt_roles)),
        "exempt_users": sorted(set(wanted.exempt_users)),
    }


def _told(row: ApprovalRule) -> dict[str, Any]:
    return view(row).model_dump(mode="json")


_KIND = RuleKind(
    ApprovalRule,
    "apl",
    "approval_rule",
    _columns,
    _told,
    _must_be_theirs,
    _must_make_sense,
)
