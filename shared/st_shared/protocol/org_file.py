"""``st-controller apply``: organisations, teams, roles, rules, quotas and prices as one file."""

from pydantic import Field

from st_shared.protocol.message import Message
from st_shared.protocol.policy_approvals import ApprovalRuleRequest
from st_shared.protocol.policy_rules import ResourceRuleRequest
from st_shared.protocol.quotas import Amount, Glob, QuotaRequest
from st_shared.protocol.tenancy import OrgSlug, RoleRequest, TeamSlug, TimeZone, Title

_MOST = 10_000


class TeamEntry(Message):
    """A team that is to be there."""

    slug: TeamSlug
    name: Title | None = None
    """None: its slug, or what it is called already."""


class OrgEntry(Message):
    """An organisation that is to be there, with teams beside those that it has."""

    slug: OrgSlug
    name: Title
    time_zone: TimeZone = "UTC"
    teams: list[TeamEntry] = Field(default_factory=list, max_length=_MOST)


class PriceEntry(Message):
    """What an hour of one slot is to cost from now on, unless it does already."""

    accelerator: Glob = "*"
    provider: Glob = "*"
    amount: Amount


class OrgFile(Message):
    """What is to be in force. What stands and is not in the file is left alone, unless pruned."""

    organisations: list[OrgEntry] = Field(default_factory=list, max_length=_MOST)
    roles: list[RoleRequest] = Field(default_factory=list, max_length=1000)
    resource_rules: list[ResourceRuleRequest] = Field(default_factory=list, max_length=_MOST)
    """Known by all that they say but the note."""
    approval_rules: list[ApprovalRuleRequest] = Field(default_factory=list, max_length=_MOST)
    """Known by organisation and name."""
    quotas: list[QuotaRequest] = Field(default_factory=list, max_length=_MOST)
    """Known by path, role, kind and action."""
    prices: list[PriceEntry] = Field(default_factory=list, max_length=_MOST)
    """Known by their globs."""
