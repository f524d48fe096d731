"""Resource rules and approval rules of a file."""

from collections.abc import Iterator, Sequence

from sqlalchemy import select

from st_controller.services.actor import Actor
from st_controller.services.arrangement.change import Change, differences
from st_controller.services.policy import approval_rules, resource_rules
from st_controller.store.schema import ApprovalRule, ResourceRule
from st_controller.store.transaction import Transaction
from st_shared.protocol.policy_approvals import ApprovalRuleRequest
from st_shared.protocol.policy_rules import ResourceRuleRequest, ResourceRuleView

_SAID = ("subject_kind", "subject", "effect", "resource", "pattern")
_ORDERED = ("exempt_roles", "exempt_users")


def arrange_resource_rules(
    tx: Transaction, actor: Actor, wanted: Sequence[ResourceRuleRequest], *, prune: bool
) -> Iterator[Change]:
    """Make what is missing, and change notes; of a rule that stands twice, one is kept."""
    standing: dict[tuple[str | None, ...], ResourceRuleView] = {}
    left: list[ResourceRuleView] = []
    for row in tx.session.scalars(select(ResourceRule).order_by(ResourceRule.id)):
        view = resource_rules.view(row)
        if _key(view) in standing:
            left.append(view)
        else:
            standing[_key(view)] = view
    for entry in wanted:
        known = standing.pop(_key(entry), None)
        if known is None:
            resource_rules.create(tx, actor, entry)
            yield Change("create", "resource rule", _called(entry))
        elif fields := differences(known, entry, "note"):
            resource_rules.replace(tx, actor, known.id, entry)
            yield Change("change", "resource rule", _called(entry), fields)
    for view in [*standing.values(), *left] if prune else []:
        resource_rules.remove(tx, actor, view.id)
        yield Change("remove", "resource rule", _called(view))


def _key(rule: ResourceRuleRequest | ResourceRuleView) -> tuple[str | None, ...]:
    org = rule.subject.partition("/")[0] if rule.subject_kind == "team" else rule.org
    return (org, *(getattr(rule, name) for name in _SAID))


def _called(rule: ResourceRuleRequest | ResourceRuleView) -> str:
    return " ".join(str(part) for part in _key(rule) if part)


def arrange_approval_rules(
    tx: Transaction, actor: Actor, wanted: Sequence[ApprovalRuleRequest], *, prune: bool
) -> Iterator[Change]:
    """Make what is missing, and change what says something else."""
    rows = tx.session.scalars(select(ApprovalRule).order_by(ApprovalRule.id))
    views = [approval_rules.view(row) for row in rows]
    standing = {(view.org, view.name): view for view in views}
    for entry in wanted:
        sorted_lists = {name: sorted(set(getattr(entry, name))) for name in _ORDERED}
        told = entry.model_copy(update=sorted_lists)
        view = standing.pop((entry.org, entry.name), None)
        if view is None:
            approval_rules.create(tx, actor, entry)
            yield Change("create", "approval rule", entry.name)
        elif fields := differences(view, told, *ApprovalRuleRequest.model_fields):
            approval_rules.replace(tx, actor, view.id, entry)
            yield Change("change", "approval rule", entry.name, fields)
    for view in standing.values() if prune else []:
        approval_rules.remove(tx, actor, view.id)
        yield Change("remove", "approval rule", view.name)
