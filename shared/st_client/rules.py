"""Resource and approval rules, as one person reaches them."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from st_client.connection import Connection
from st_client.errors import MissingError
from st_shared.protocol.policy_approvals import ApprovalRuleRequest, ApprovalRuleView
from st_shared.protocol.policy_rules import ResourceRuleRequest, ResourceRuleView
from st_shared.protocol.resources import Page

Items = Callable[..., Iterator[Any]]
"""Reads a list page by page: path and kind of a page."""


class Rules:
    """Part of a ``Client``: what may be asked for, and which jobs wait for a person's word."""

    def __init__(self, connection: Connection, items: Items) -> None:
        self._connection, self._items = connection, items

    def resources(self) -> Iterator[ResourceRuleView]:
        """The resource rules that bind one, or all that one may make; oldest first."""
        return self._items("resource-rules", Page[ResourceRuleView])

    def set_resource(
        self, request: ResourceRuleRequest, instead: str | None = None
    ) -> ResourceRuleView:
        """Make a resource rule, or put it in place of another."""
        body = request.model_dump(mode="json")
        if instead:
            return self._connection.put(_path("resource", instead), ResourceRuleView, body)
        return self._connection.post("resource-rules", ResourceRuleView, body)

    def remove_resource(self, rule_id: str) -> None:
        """Take a resource rule away."""
        self._connection.delete(_path("resource", rule_id))

    def approvals(self) -> Iterator[ApprovalRuleView]:
        """The approval rules that bind one, or all that one may make; oldest first."""
        return self._items("approval-rules", Page[ApprovalRuleView])

    def approval(self, rule_id: str) -> ApprovalRuleView:
        """One approval rule, or ``MissingError``."""
        for rule in self.approvals():
            if rule.id == rule_id:
                return rule
        said = f"there is no approval rule {rule_id}"
        raise MissingError(said, hint="`st approval-rules` lists them")

    def set_approval(
        self, request: ApprovalRuleRequest, instead: str | None = None
    ) -> ApprovalRuleView:
        """Make an approval rule, or put it in place of another."""
        body = request.model_dump(mode="json")
        if instead:
            return self._connection.put(_path("approval", instead), ApprovalRuleView, body)
        return self._connection.post("approval-rules", ApprovalRuleView, body)

    def remove_approval(self, rule_id: str) -> None:
        """Take an approval rule away."""
        self._connection.delete(_path("approval", rule_id))


def _path(kind: str, rule_id: str) -> str:
    return f"{kind}-rules/{quote(rule_id, safe='')}"
