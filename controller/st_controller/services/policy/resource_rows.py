"""Rows of resource rules as the rules of the domain."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.resource_rules import (
    Effect,
    Resource,
    ResourceRules,
    SubjectKind,
)
from st_controller.domain.policy.resource_rules import ResourceRule as Rule
from st_controller.store.schema import ResourceRule


def read(session: Session) -> ResourceRules:
    """All rules."""
    return ResourceRules(tuple(rule_of(row) for row in session.scalars(select(ResourceRule))))


def rule_of(row: ResourceRule) -> Rule:
    """The rule that a row holds."""
    return Rule(
        row.id,
        row.org,
        SubjectKind(row.subject_kind),
        row.subject,
        Resource(row.resource),
        row.pattern,
        Effect(row.effect),
        row.note,
    )
