"""Resource rules as people make them; each change is audited and holds for the next submission."""

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.resource_rules import Subject, SubjectKind
from st_controller.errors import NotFound
from st_controller.services.actor import Actor
from st_controller.services.policy import book
from st_controller.services.policy.governing import must_exist, must_govern
from st_controller.services.policy.resource_rows import rule_of
from st_controller.store.schema import ResourceRule
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
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
    row = ResourceRule(id=new_id("rul"), created_by=actor.user_id, **_columns(wanted))
    row.changed_at = tx.now
    _must_be_theirs(tx.session, actor, row)
    _must_make_sense(tx.session, wanted)
    tx.session.add(row)
    tx.audit(actor.signature, "resource_rule.made", row.id, rule=wanted.model_dump())
    book.changed(tx)
    return view(row)


def replace(
    tx: Transaction, actor: Actor, rule_id: str, wanted: ResourceRuleRequest
) -> ResourceRuleView:
    """Put other content in place of a rule's; the same refusals as of ``create``, and NotFound."""
    row = _found(tx.session, actor, rule_id)
    _must_be_theirs(tx.session, actor, row)
    before = _request_of(row)
    for name, value in _columns(wanted).items():
        setattr(row, name, value)
    row.changed_at = tx.now
    _must_be_theirs(tx.session, actor, row)
    _must_make_sense(tx.session, wanted)
    after = wanted.model_dump()
    tx.audit(actor.signature, "resource_rule.changed", row.id, before=before, after=after)
    book.changed(tx)
    return view(row)


def remove(tx: Transaction, actor: Actor, rule_id: str) -> None:
    """Take a rule away."""
    row = _found(tx.session, actor, rule_id)
    _must_be_theirs(tx.session, actor, row)
    tx.session.delete(row)
    tx.audit(actor.signature, "resource_rule.removed", rule_id, rule=_request_of(row))
    book.changed(tx)


def list_rules(
    session: Session, actor: Actor, *, cursor: str | None, limit: int
) -> Page[ResourceRuleView]:
    """The rules that the actor may see, oldest first: those that bind them, or all of theirs."""
    query = select(ResourceRule).order_by(ResourceRule.id)
    if cursor:
        query = query.where(ResourceRule.id > cursor)
    if actor.may(MANAGE) and actor.widest >= Reach.ORG:
        if actor.widest < Reach.SYSTEM:
            query = query.where(_of_org(actor))
        found = list(session.scalars(query.limit(limit + 1)))
    else:
        rows = session.scalars(query.where(_of_org(actor)))
        found = [row for row in rows if any(rule_of(row).applies_to(who) for who in _guises(actor))]
    more = found[limit - 1].id if len(found) > limit else None
    return Page(items=[view(row) for row in found[:limit]], next_cursor=more)


def view(row: ResourceRule) -> ResourceRuleView:
    """A rule as people see it."""
    return ResourceRuleView(id=row.id, changed_at=row.changed_at, **_request_of(row))


def _of_org(actor: Actor) -> Any:
    return or_(ResourceRule.org.is_(None), ResourceRule.org == actor.org)


def _found(session: Session, actor: Actor, rule_id: str) -> ResourceRule:
    row = session.get(ResourceRule, rule_id, with_for_update=True)
    hidden = row is not None and actor.widest < Reach.SYSTEM and row.org not in {None, actor.org}
    if row is None or hidden:
        raise NotFound(f"there is no resource rule {rule_id}")
    return row


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
