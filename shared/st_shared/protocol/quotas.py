"""What the public API says of quotas, prices and use.

Amounts of money are decimals of the one currency of the system, with at most six places; amounts of
time are slot-hours; all others are whole numbers. They travel as strings, so that none is rounded.

| route | permission | body | answer |
|---|---|---|---|
| ``GET quotas`` | ``job.view.own``; of others ``quota.view`` | | ``Page[QuotaView]`` |
| ``PUT quotas`` | ``quota.manage`` | ``QuotaRequest`` | ``QuotaView`` |
| ``DELETE quotas/{id}`` | ``quota.manage`` | | 204 |
| ``PUT orgs/{org}/quotas`` | ``org.manage.quotas`` | ``QuotaRequest`` | ``QuotaView`` |
| ``DELETE orgs/{org}/quotas/{id}`` | ``org.manage.quotas`` | | 204 |
| ``PUT orgs/{org}/teams/{team}/quotas`` | ``team.manage.quotas`` | the same | the same |
| ``DELETE orgs/{org}/teams/{team}/quotas/{id}`` | ``team.manage.quotas`` | | 204 |
| ``GET quotas/usage`` ``?path=`` | ``job.view.own``; of others ``quota.view`` | | ``UsageView`` |
| ``GET prices`` | ``job.view.own`` | | ``Page[PriceView]`` |
| ``POST prices`` | ``admin.quotas`` | ``PriceRequest`` | ``PriceView`` 201 |
| ``DELETE prices/{id}`` | ``admin.quotas`` | | 204 |
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, field_validator

from st_shared.protocol.message import Message, Moment, Resource, Text
from st_shared.protocol.tenancy import RoleSlug

Amount = Annotated[Decimal, Field(ge=0, le=10**18, max_digits=25, decimal_places=12)]
QuotaKind = Literal[
    "cost_daily",
    "cost_monthly",
    "slot_hours_monthly",
    "running_jobs",
    "running_slots",
    "submissions_per_minute",
    "submissions_per_hour",
    "submissions_per_day",
    "storage_bytes",
]
QuotaAction = Literal["block", "require_approval", "warn", "notify"]
Glob = Annotated[Text, Field(min_length=1, max_length=200)]


class QuotaRequest(Message):
    """A limit; another amount for the same path, role, kind and action takes its place."""

    path: Text = Field(min_length=1, max_length=260)
    """``org``, ``org/team``, ``org/team/user``, or ``all``; members share what it allows."""
    role: RoleSlug | None = None
    """Each user of this role there has as much for themselves, unless a limit of their own stands;
    none: all share it."""
    kind: QuotaKind
    amount: Amount
    action: QuotaAction = "block"


class QuotaView(Resource):
    """A limit in force."""

    id: str
    path: str
    role: str | None
    """It is one of each user of this role there; none: all share it."""
    kind: QuotaKind
    amount: Amount
    action: QuotaAction


class QuotaUsage(QuotaView):
    """A limit, and how much of it is taken."""

    used: Amount
    """In the present period."""
    held: Amount
    """For jobs that are not over yet."""
    left: Amount
    renews_at: Moment | None
    """When what was used is forgotten; none: never."""
    runs_out_at: Moment | None
    """When nothing is left if it is used up as today; none: not in this period."""


class Spending(Resource):
    """What was used in a day or month, whether or not a quota counts it."""

    day_cost: Amount
    month_cost: Amount
    month_slot_hours: Amount


class UsageView(Resource):
    """Limits that hold for somebody, outermost first, and what they used."""

    path: str
    time_zone: str
    quotas: list[QuotaUsage]
    spending: Spending
    made_at: Moment


class PriceRequest(Message):
    """What an hour of one slot costs; the most specific globs that match count."""

    accelerator: Glob = "*"
    provider: Glob = "*"
    amount: Amount
    since: AwareDatetime | None = None
    """Moment from which it holds; none: from now on."""

    @field_validator("since")
    @classmethod
    def _is_in_the_calendar(cls, since: datetime | None) -> datetime | None:
        """Moments at the ends of the calendar have no place in UTC."""
        if since is not None and not 1970 <= since.year <= 9000:
            raise ValueError("give a moment of the years 1970 to 9000")
        return since


class PriceView(Resource):
    """A price."""

    id: str
    accelerator: str
    provider: str
    amount: Amount
    since: Moment
