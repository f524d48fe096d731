"""What keeping resource rules and approval rules has in common: made, changed, removed, listed.

Each change is audited and holds for the next submission.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, or_
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.errors import NotFound
from st_controller.services.actor import Actor
from st_controller.services.policy import book
from st_controller.store.schema import ApprovalRule, ResourceRule
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.policy_approvals import ApprovalRuleRequest
from st_shared.protocol.policy_rules import ResourceRuleRequest

Row = TypeVar("Row", ResourceRule, ApprovalRule)
Wanted = TypeVar("Wanted", ResourceRuleRequest, ApprovalRuleRequest)


@dataclass(frozen=True)
class RuleKind(Generic[Row, Wanted]):
    """One kind of rules, and what is its own."""

    table: type[Row]
    prefix: str
    """Of ids."""
    name: str
    """``resource_rule``: begins the actions of the audit log."""
    columns: Callable[[Wanted], Mapping[str, Any]]
    told: Callable[[Row], Mapping[str, Any]]
    """A rule as the audit log has it."""
    must_be_theirs: Callable[[Session, Actor, Row], None]
    """Refuses who may not make, change or remove such a rule."""
    must_make_sense: Callable[[Session, Wanted], None]
    """Refuses a rule about who is not there."""

    def create(self, tx: Transaction, actor: Actor, wanted: Wanted) -> Row:
        """Make a rule."""
        row = self.table(id=new_id(self.prefix), created_by=actor.user_id, **self.columns(wanted))
        row.changed_at = tx.now
        self.must_be_theirs(tx.session, actor, row)
        self.must_make_sense(tx.session, wanted)
        tx.session.add(row)
        tx.audit(actor.signature, f"{self.name}.made", row.id, rule=wanted.model_dump())
        book.changed(tx)
        return row

    def replace(self, tx: Transaction, actor: Actor, rule_id: str, wanted: Wanted) -> Row:
        """Put other content in place of a rule's, which must be theirs before and after."""
        row = self._found(tx.session, actor, rule_id)
        self.must_be_theirs(tx.session, actor, row)
        before = self.told(row)
        for name, value in self.columns(wanted).items():
            setattr(row, name, value)
        row.changed_at = tx.now
        self.must_be_theirs(tx.session, actor, row)
        self.must_make_sense(tx.session, wanted)
        after = wanted.model_dump()
        tx.audit(actor.signature, f"{self.name}.changed", row.id, before=before, after=after)
        book.changed(tx)
        return row

    def remove(self, tx: Transaction, actor: Actor, rule_id: str) -> None:
        """Take a rule away."""
        row = self._found(tx.session, actor, rule_id)
        self.must_be_theirs(tx.session, actor, row)
        before = self.told(row)
        tx.session.delete(row)
        tx.audit(actor.signature, f"{self.name}.removed", rule_id, rule=before)
        book.changed(tx)

    def in_sight(self, query: Select[Row], actor: Actor) -> Select[Row]:
        """Those of the actor's organisation and of all; whoever reaches the system sees all."""
        return query if actor.widest >= Reach.SYSTEM else query.where(self.of_org(actor))

    def of_org(self, actor: Actor) -> ColumnElement[bool]:
        """That a rule is for the actor's organisation, or for all."""
        return or_(self.table.org.is_(None), self.table.org == actor.org)

    def _found(self, session: Session, actor: Actor, rule_id: str) -> Row:
        row = session.get(self.table, rule_id, with_for_update=True)
        if row is None or (actor.widest < Reach.SYSTEM and row.org not in {None, actor.org}):
            raise NotFound(f"there is no {self.name.replace('_', ' ')} {rule_id}")
        return row


def page_of(rows: Iterable[Row], limit: int) -> tuple[list[Row], str | None]:
    """The first rows, and the id after which the next page begins."""
    found = list(rows)
    return found[:limit], found[limit - 1].id if len(found) > limit else None
