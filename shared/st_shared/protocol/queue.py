"""What the public API says of the queue: shares, limits, rules, and why a job waits.

| route | permission | body | answer |
|---|---|---|---|
| ``GET queue`` | ``queue.view`` | | ``QueueView``; other tenants with ``queue.view.all`` |
| ``GET queue/policy`` · ``PUT queue/policy`` | ``queue.view`` · ``admin.queue`` | ``QueueRules`` | ``QueueRules`` |
| ``PUT queue/shares/{path}`` · ``PATCH queue/shares/{path}``, what is left out stays | ``queue.manage`` | ``ShareRequest`` | ``ShareView`` |
| ``DELETE queue/shares/{path}`` | ``queue.manage`` | | 204 |
| ``GET jobs/{id}/explain`` | ``job.view.own`` | | ``Explanation`` |
"""  # noqa: E501

from typing import Literal

from pydantic import Field

from st_shared.protocol.message import Message, Moment, Resource
from st_shared.protocol.resources import Reason


class QueueRules(Message):
    """The rules of the queue."""

    ageing_interval: float = Field(3600.0, ge=1, le=366 * 86_400)
    """Seconds of waiting that raise a job by one class, up to critical."""
    half_life: float = Field(7 * 86_400.0, ge=60, le=3660 * 86_400)
    """Seconds in which what a tenant has used counts half."""
    horizon: float = Field(900.0, ge=0, le=30 * 86_400)
    """Seconds for which what runs now is counted ahead in the fair share."""
    catch_up: float = Field(4 * 3600.0, ge=0, le=366 * 86_400)
    """Seconds of its share that a tenant which was idle may claim when it returns."""
    max_preemptions: int = Field(3, ge=0, le=1000)
    """A job that was preempted so often is left alone."""
    preemption_grace: float = Field(120.0, ge=1, le=86_400)
    """Seconds in which a preempted job is expected to have yielded."""
    reserved_part: float = Field(0.15, ge=0, le=1)
    """Part of the slots that is kept for heads of the line at most, beside the first of them."""
    settle_interval: float = Field(30.0, ge=1, le=3600)
    """Seconds between two looks at the decay of all usage."""


class ShareRequest(Message):
    """Weight and limits of an organisation, a team or a user."""

    weight: float = Field(1.0, gt=0, le=1e6)
    """What it gets beside its siblings while all want more."""
    max_jobs: int | None = Field(None, ge=0, le=10**9)
    """Most jobs of it that run at one time."""
    max_slots: int | None = Field(None, ge=0, le=10**9)
    """Most slots that they hold together."""


class ShareView(ShareRequest):
    """Weight and limits that were set."""

    path: str
    """``org``, ``org/team`` or ``org/team/user``."""


class TenantView(Resource):
    """An organisation, a team or a user in the queue."""

    path: str
    """Empty for the whole system."""
    weight: float
    max_jobs: int | None
    max_slots: int | None
    usage: float
    """Decayed slot-seconds, weighted by price."""
    forfeited: float
    """Claim on the share that lapsed while it was idle, with what decay is not to forgive of a lead
    over its siblings or (negative) of a lag; counts like usage."""
    within_share: bool
    """Whether it has had no more for its weight than its siblings that want slots too."""
    active: bool
    """Whether it runs, waits or has slots kept for it; only such siblings share."""
    running_jobs: int
    running_slots: int
    waiting: int


class ReservationView(Resource):
    """Workers that are kept for the head of the line."""

    job_id: str | None
    """None where the job is not for the caller's eyes."""
    workers: list[str]
    starts_by: Moment | None
    """When it is expected to fit, by how long what runs there is expected to last."""
    preempting: bool


class QueueView(Resource):
    """The queue as it stands."""

    made_at: Moment
    waiting: int
    """Jobs that wait for slots."""
    held: dict[str, int]
    """Jobs that wait for something else, by reason."""
    running: int
    slots: int
    slots_taken: int
    tenants: list[TenantView]
    reservations: list[ReservationView]


class AheadView(Resource):
    """A job that is expected to start before another."""

    job_id: str | None
    """None where the job is not for the caller's eyes."""
    priority: str
    slots: int
    starts_at: Moment


class LevelView(Resource):
    """How urgent a job is to the scheduler."""

    asked: int
    """Level of the class that was asked for, 0 to 40."""
    override: int | None
    """Level that an admin put in place of it."""
    reached: int
    """Level at which it is served now, raised by waiting."""


class Explanation(Resource):
    """Why a job waits, and when it is expected to start."""

    job_id: str
    state: str
    reason: Reason | None
    """None: it does not wait."""
    place: int | None
    """How many jobs are expected to start before it; none: too many to tell."""
    ahead: list[AheadView]
    """The first of them."""
    starts_at: Moment | None
    """Expected start; none: it cannot be told."""
    starts_after: Moment | None = None
    """A moment before which it is not expected to start, where the forecast came no further."""
    basis: Literal["declared", "learned", "time limit"] | None
    """Where the duration of this job itself is taken from."""
    level: LevelView
    shares: list[TenantView]
    """Its user, team and organisation, innermost first."""
    made_at: Moment
