"""What the public API says of approvals: which jobs need a person's word, and whose.

| route | permission | body | answer |
|---|---|---|---|
| ``GET approval-rules`` ``?cursor= &limit=`` | ``job.view.own``: those that bind the caller; ``admin.approve``: all of theirs | | ``Page[ApprovalRuleView]`` |
| ``POST approval-rules`` | ``admin.approve`` | ``ApprovalRuleRequest`` | ``ApprovalRuleView`` 201 |
| ``PUT approval-rules/{id}`` | ``admin.approve`` | ``ApprovalRuleRequest`` | ``ApprovalRuleView`` |
| ``DELETE approval-rules/{id}`` | ``admin.approve`` | | 204 |
| ``GET approvals`` ``?state= &cursor= &limit=`` | ``job.view.own``: one's own; ``queue.approve``: within reach | | ``Page[ApprovalView]``, oldest first |
| ``GET approvals/{id}`` | the same | | ``ApprovalView`` |
| ``POST approvals/{id}/decision`` | ``queue.approve`` | ``Decision`` | ``ApprovalView`` |
| ``POST approvals:decide`` | ``queue.approve`` | ``ManyDecisions`` | ``DecisionResults``, each decided on its own |

``{id}`` and ``ids`` take the id of an approval, or that of the job that waits for it.
"""  # noqa: E501

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from st_shared.protocol.message import Message, Moment, Resource, Text
from st_shared.protocol.problems import Problem
from st_shared.protocol.tenancy import OrgSlug
from st_shared.spec.places import FieldError

ConditionName = Literal[
    "cost_over",
    "slot_hours_over",
    "jobs_per_day_over",
    "first_job",
    "accelerator",
    "provider",
    "role",
    "config",
    "family",
]
_AMOUNTS = ("cost_over", "slot_hours_over", "jobs_per_day_over")
_NARROWED = ("accelerator", "provider")
ApprovalState = Literal["pending", "approved", "rejected", "expired", "cancelled"]
Slug = Annotated[Text, Field(min_length=1, max_length=200)]


class ApprovalRuleRequest(Message):
    """Which jobs wait for approval. Of all rules that match a job the strictest demands count."""

    name: Text = Field(min_length=1, max_length=120)
    org: OrgSlug | None = None
    """Only jobs of this organisation; none: of all."""
    condition: ConditionName
    amount: int | None = Field(None, ge=0, le=10**15)
    """More than this: micro-units of the currency for ``cost_over``, hours, or jobs in 24 hours."""
    pattern: Text | None = Field(None, min_length=1, max_length=200)
    """A glob, letter case ignored; for ``role`` the name of a role."""
    exempt_roles: list[Slug] = Field(default_factory=list, max_length=100)
    exempt_users: list[Slug] = Field(default_factory=list, max_length=1000)
    approver: Text = Field("lead", min_length=1, max_length=40)
    """Role that an approver must have, or one of a higher rank."""
    quorum: int = Field(1, ge=1, le=20)
    """How many must agree; one who rejects is enough."""
    expires_after: float = Field(86_400.0, ge=60, le=366 * 86_400)
    """Seconds after which a job that waits is rejected."""
    priority: int = Field(0, ge=-1000, le=1000)
    """The rule with the highest is named first."""
    enabled: bool = True

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        has_amount = self.condition in _AMOUNTS
        if has_amount != (self.amount is not None):
            said = f"`amount` goes with {', '.join(_AMOUNTS)}, and only with these"
            raise FieldError(said, "amount")
        if (self.pattern is None) != (has_amount or self.condition == "first_job"):
            raise FieldError(
                "`pattern` goes with accelerator, provider, role, config and family, and only "
                "with these",
                "pattern",
            )
        pattern = self.pattern or ""
        if self.condition in _NARROWED and any(letter in pattern for letter in "|&!"):
            said = "`pattern` is one glob, without | & or !: make a rule for each"
            raise FieldError(said, "pattern")
        return self


class ApprovalRuleView(Resource):
    """A rule that stands."""

    id: str
    name: str
    org: str | None
    condition: ConditionName
    amount: int | None
    pattern: str | None
    exempt_roles: list[str]
    exempt_users: list[str]
    approver: str
    quorum: int
    expires_after: float
    priority: int
    enabled: bool
    changed_at: Moment


class DecisionView(Resource):
    """What one person said."""

    user: str
    decision: Literal["approve", "reject"]
    reason: str
    at: Moment


class ApprovalView(Resource):
    """A job that waits, or waited, for approval."""

    id: str
    job_id: str
    job_name: str
    org: str
    team: str
    requested_by: str
    state: ApprovalState
    approver: str
    """Role that an approver must have, or one of a higher rank."""
    quorum: int
    reasons: list[str]
    """What each rule says, the most important first."""
    decisions: list[DecisionView]
    created_at: Moment
    expires_at: Moment
    decided_at: Moment | None
    may_decide: bool
    """Whether the caller may decide on it now."""
    slots: int
    """On all nodes of the job."""
    accelerator: str
    family: str


class Decision(Message):
    """Yes or no, and why."""

    decision: Literal["approve", "reject"]
    reason: Text = Field("", max_length=1000)
    """Told to whoever submitted the job; a rejection needs one."""

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.decision == "reject" and not self.reason.strip():
            said = "`reason` is required to reject: it is told to whoever submitted"
            raise FieldError(said, "reason")
        return self


class ManyDecisions(Decision):
    """The same of many jobs."""

    ids: list[Annotated[Text, Field(min_length=1, max_length=40)]] = Field(
        min_length=1, max_length=200
    )


class DecisionResult(Resource):
    """What came of one of them: the approval, or the problem."""

    id: str
    approval: ApprovalView | None = None
    problem: Problem | None = None


class DecisionResults(Resource):
    """What came of each, in their order."""

    results: list[DecisionResult]
