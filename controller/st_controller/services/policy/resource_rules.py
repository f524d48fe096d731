"""Resource rules as people make them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.resource_rules import Subject, SubjectKind
from st_controller.services.actor import Actor
from st_controller.services.policy.governing import must_exist, must_govern
from st_controller.services.policy.resource_rows import rule_of
from st_controller.services.policy.rule_keeping import RuleKind, page_of
from st_controller.store.schema import ResourceRule
from st_controller.store.transaction import Transaction
from st_shared.protocol.policy_rules import ResourceRuleRequest, ResourceRuleView
from st_shared.protocol.resources import Page

MANAGE = "admin.config"
"""The permission to make resource rules."""


def create(tx: Transaction, actor: Actor, wanted: ResourceRuleRequest) -> ResourceRuleView:
    """Make a rule.

    Raises:
        NotPermitted: it reaches farther than the actor, or binds the actor.
        InvalidRequest: whom it names does not exist.
    """
    return view(_KIND.create(tx, actor, wanted))


def replace(
    tx: Transaction, actor: Actor, rule_id: str, wanted: ResourceRuleRequest
) -> ResourceRuleView:
    """Put other content in place of a rule's; the same refusals as of ``create``, and NotFound."""
    return view(_KIND.replace(tx, actor, rule_id, wanted))


def remove(tx: Transaction, actor: Actor, rule_id: str) -> None:
    """Take a rule away."""
    _KIND.remove(tx, actor, rule_id)


def list_rules(
    session: Session, actor: Actor, *, cursor: str | None, limit: int
) -> Page[ResourceRuleView]:
    """The rules that the actor may see, oldest first: those that bind them, or all of theirs."""
    query = select(ResourceRule).order_by(ResourceRule.id)
    if cursor:
        query = query.where(ResourceRule.id > cursor)
    if actor.may(MANAGE) and actor.widest >= Reach.ORG:
        found = list(session.scalars(_KIND.in_sight(query, actor).limit(limit + 1)))
    else:
        rows = session.scalars(query.where(_KIND.of_org(actor)))
        found = [row for row in rows if any(rule_of(row).applies_to(who) for who in _guises(actor))]
    shown, more = page_of(found, limit)
    return Page(items=[view(row) for row in shown], next_cursor=more)


def view(row: ResourceRule) -> ResourceRuleView:
    """A rule as people see it."""
    return ResourceRuleView(id=row.id, changed_at=row.changed_at, **_request_of(row))


def _must_be_theirs(session: Session, actor: Actor, row: ResourceRule) -> None:
    rule = rule_of(row)
    must_govern(
        session,
        actor,
        row.org,
        binds_them=any(rule.applies_to(who) for who in _guises(actor)),
        roles=[row.subject] if row.subject_kind == SubjectKind.ROLE else [],
    )


def _must_make_sense(session: Session, wanted: ResourceRuleRequest) -> None:
    if wanted.org is not None:
        must_exist(session, "org", wanted.org, None, "org")
    if wanted.subject_kind != "everyone":
        must_exist(session, wanted.subject_kind, wanted.subject, wanted.org, "subject")


def _guises(actor: Actor) -> list[Subject]:
    """The actor as a member of each of their teams."""
    return [
        Subject(actor.org, team, actor.username, actor.role)
        for team in sorted(actor.teams | {actor.team})
    ]


def _columns(wanted: ResourceRuleRequest) -> dict[str, Any]:
    columns = wanted.model_dump()
    if wanted.subject_kind == "team":
        columns["org"] = wanted.subject.partition("/")[0]
    return columns


def _request_of(row: ResourceRule) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ResourceRuleRequest.model_fields}


_KIND = RuleKind(
    ResourceRule,
    "rul",
    "resource_rule",
    _columns,
    _request_of,
    _must_be_theirs,
    _must_make_sense,
)
