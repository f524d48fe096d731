"""Quotas: what an organisation, a team or a person may use, and what happens at the limit. Pure.

Limits of an organisation and a team are pooled: all their members together stay below them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from st_controller.domain.policy import money, periods
from st_controller.domain.policy.periods import Period
from st_shared.protocol.resources import Reason


class Kind(StrEnum):
    """What a quota counts."""

    COST_DAILY = "cost_daily"
    """Money for slots in a calendar day."""
    COST_MONTHLY = "cost_monthly"
    """Money for slots in a calendar month."""
    SLOT_HOURS_MONTHLY = "slot_hours_monthly"
    """Hours of slots in a calendar month."""
    RUNNING_JOBS = "running_jobs"
    """Jobs that hold slots at one time."""
    RUNNING_SLOTS = "running_slots"
    """Slots that they hold."""
    SUBMISSIONS_PER_MINUTE = "submissions_per_minute"
    """Jobs submitted in a minute of the clock."""
    SUBMISSIONS_PER_HOUR = "submissions_per_hour"
    """Jobs submitted in an hour of the clock."""
    SUBMISSIONS_PER_DAY = "submissions_per_day"
    """Jobs submitted in a calendar day."""
    STORAGE_BYTES = "storage_bytes"
    """Bytes of stored artifacts and datasets."""


class Action(StrEnum):
    """What happens to a job that would pass the limit."""

    BLOCK = "block"
    """It is refused; of running jobs and slots, it waits."""
    REQUIRE_APPROVAL = "require_approval"
    """It waits until somebody agrees."""
    WARN = "warn"
    """Whoever submits it is told."""
    NOTIFY = "notify"
    """An event says so, once each time the limit is passed."""


class Meter(StrEnum):
    """What the amounts of a kind are made of."""

    COST = "cost"
    """Micro-units of the currency."""
    SLOT_TIME = "slot_time"
    """Milliseconds of slots."""
    SUBMISSIONS = "submissions"
    RUNNING_JOBS = "running_jobs"
    RUNNING_SLOTS = "running_slots"
    STORAGE = "storage"


class _Rule(NamedTuple):
    meter: Meter
    period: Period


RULES: Mapping[Kind, _Rule] = {
    Kind.COST_DAILY: _Rule(Meter.COST, Period.DAY),
    Kind.COST_MONTHLY: _Rule(Meter.COST, Period.MONTH),
    Kind.SLOT_HOURS_MONTHLY: _Rule(Meter.SLOT_TIME, Period.MONTH),
    Kind.RUNNING_JOBS: _Rule(Meter.RUNNING_JOBS, Period.NONE),
    Kind.RUNNING_SLOTS: _Rule(Meter.RUNNING_SLOTS, Period.NONE),
    Kind.SUBMISSIONS_PER_MINUTE: _Rule(Meter.SUBMISSIONS, Period.MINUTE),
    Kind.SUBMISSIONS_PER_HOUR: _Rule(Meter.SUBMISSIONS, Period.HOUR),
    Kind.SUBMISSIONS_PER_DAY: _Rule(Meter.SUBMISSIONS, Period.DAY),
    Kind.STORAGE_BYTES: _Rule(Meter.STORAGE, Period.NONE),
}
"""What each kind counts, and for how long."""

HELD = frozenset({Meter.COST, Meter.SLOT_TIME})
"""Meters of which a part is held for each job from its submission to its end."""
RUNNING = frozenset({Meter.RUNNING_JOBS, Meter.RUNNING_SLOTS})
"""Meters that change as jobs start and end; nothing is counted beforehand."""
_SCALE = {Meter.COST: money.MICROS, Meter.SLOT_TIME: 3_600_000}
_MOST = 10**18


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit of one node of the tenant tree."""

    id: str
    path: str
    """Empty for the whole system, else ``org``, ``org/team`` or ``org/team/user``."""
    kind: Kind
    amount: int
    """In the smallest unit of its meter."""
    action: Action
    role: str = ""
    """Empty: all at and below ``path`` share it; else each user of this role there has as much."""

    @property
    def depth(self) -> int:
        """0 for the whole system, 3 for a user."""
        return len(self.path.split("/")) if self.path else 0

    @property
    def node(self) -> str:
        """What it is a limit of, for people."""
        where = self.path or "the whole system"
        return f"each {self.role} of {where}" if self.role else where


def smallest(kind: Kind, amount: Decimal) -> int:
    """An amount as people write it (currency, hours, a number) in the smallest unit of its meter.

    Raises:
        ValueError: it is not one, with what would be.
    """
    meter = RULES[kind].meter
    if meter is Meter.COST:
        return money.micros(amount)
    scaled = amount * _SCALE.get(meter, 1)
    if not amount.is_finite() or not 0 <= scaled <= _MOST:
        raise ValueError(f"give a number from 0 to {_MOST // _SCALE.get(meter, 1)}")
    if scaled != scaled.to_integral_value():
        raise ValueError("give a whole number" if meter not in _SCALE else "too many decimals")
    return int(scaled)


def spoken(kind: Kind, amount: int) -> Decimal:
    """The amount as people write it: currency, slot-hours, a number; rounded to 6 decimals."""
    found = Decimal(amount) / _SCALE.get(RULES[kind].meter, 1)
    found = round(found, 6).normalize()
    return found if int(found.as_tuple().exponent) <= 0 else found.quantize(Decimal(1))


class Counter(NamedTuple):
    """What a node has used in the present period, and what is held for jobs that are not over."""

    used: int
    held: int = 0

    @property
    def total(self) -> int:
        """Both together, which stays below the limit."""
        return self.used + self.held


class Passed(NamedTuple):
    """A limit that a job passes."""

    quota: Quota
    counter: Counter
    """With what the job asks for."""
    asked: int


@dataclass(frozen=True, slots=True)
class Place:
    """A counter: a kind at a node, with all quotas that look at it."""

    path: str
    kind: Kind
    quotas: tuple[Quota, ...]
    zone: tzinfo
    """Of its calendar."""

    @property
    def order(self) -> tuple[tuple[str, ...], str]:
        """Counters are locked in this order by everybody: a node before what lies below it."""
        return (tuple(self.path.split("/")) if self.path else (), self.kind.value)

    @property
    def meter(self) -> Meter:
        """What it counts."""
        return RULES[self.kind].meter

    @property
    def comes_with_role(self) -> bool:
        """Whether a limit stands here only because of who the user is; its counter is made late."""
        return any(quota.role for quota in self.quotas)

    @property
    def ceiling(self) -> Quota | None:
        """The lowest limit that blocks."""
        blocking = [quota for quota in self.quotas if quota.action is Action.BLOCK]
        return min(blocking, key=lambda quota: quota.amount, default=None)

    def period(self, moment: datetime) -> str:
        """The key of its present period."""
        return periods.key(RULES[self.kind].period, moment, self.zone)

    def renews(self, moment: datetime) -> datetime | None:
        """When it begins anew; none: never."""
        found = periods.bounds(RULES[self.kind].period, moment, self.zone)
        return found[1] if found else None

    def passed(self, after: Counter, asked: int) -> list[Passed]:
        """The limits that do not block and are passed once ``after`` holds."""
        return [
            Passed(quota, after, asked)
            for quota in self.quotas
            if quota.action is not Action.BLOCK and after.total > quota.amount
        ]


def in_order(places: Iterable[Place]) -> list[Place]:
    """Counters in the order in which everybody locks them."""
    return sorted(places, key=lambda place: place.order)


def running_limits(quotas: Iterable[Quota]) -> dict[str, dict[Meter, int]]:
    """Path -> the most jobs and slots that may run there, of quotas that block."""
    found: dict[str, dict[Meter, int]] = {}
    for quota in quotas:
        meter = RULES[quota.kind].meter
        if meter in RUNNING and quota.action is Action.BLOCK:
            limits = found.setdefault(quota.path, {})
            limits[meter] = min(quota.amount, limits.get(meter, quota.amount))
    return found


def told(place: Place, passed: Passed, now: datetime) -> Reason:
    """What is said to whoever passes a limit that does not block."""
    return Reason(
        code="quota_warning",
        message=f"{_sentence(place, passed.quota, passed.counter)}.{_renewal(place, now)}",
        hint="`st quota` shows what is left",
    )


def refused(place: Place, counter: Counter, asked: int, now: datetime) -> Reason:
    """Why a blocking quota lets a job not pass; ``counter`` is without it."""
    quota = place.ceiling
    assert quota is not None  # noqa: S101 - something else does not refuse
    left = max(0, quota.amount - counter.total)
    if not place.path:  # what others used is not for everybody's eyes
        said = f"The quota {place.kind.value} of the whole system has too little left."
        said += _renewal(place, now)
        return Reason(code="quota_exceeded", message=said, hint=_MENDS[place.meter])
    said = (
        f"{_sentence(place, quota, counter)}: {_amount(place.kind, left)} left, "
        f"{_amount(place.kind, asked)} asked for.{_renewal(place, now)}"
    )
    return Reason(code="quota_exceeded", message=said, hint=_MENDS[place.meter])


def exhausted(place: Place, counter: Counter, now: datetime) -> Reason:
    """Why a running job is stopped for good."""
    quota = place.ceiling
    assert quota is not None  # noqa: S101 - something else stops nothing
    said = f"{_sentence(place, quota, counter)}, and the job needs more.{_renewal(place, now)}"
    hint = "`st retry` goes on from its last checkpoint once there is something left"
    return Reason(code="quota_exhausted", message=said, hint=hint)


def _sentence(place: Place, quota: Quota, counter: Counter) -> str:
    if not place.path:
        return f"The quota {place.kind.value} of the whole system is passed"
    held = f", {_amount(place.kind, counter.held)} held" if place.meter in HELD else ""
    whose = f"{place.path} ({quota.node})" if quota.role else place.path
    return (
        f"The quota {place.kind.value} of {whose} is {_amount(place.kind, quota.amount)}: "
        f"{_amount(place.kind, counter.used)} used{held}"
    )


def _renewal(place: Place, now: datetime) -> str:
    renews = place.renews(now)
    if renews is None:
        return ""
    return f" It begins anew at {renews.astimezone(place.zone).isoformat(timespec='minutes')}."


def _amount(kind: Kind, amount: int) -> str:
    said = f"{spoken(kind, amount):f}"
    return f"{said} slot-hours" if RULES[kind].meter is Meter.SLOT_TIME else said


_MENDS = {
    Meter.COST: "ask for fewer slots or less time (expected_time, time_limit), or for more quota",
    Meter.SLOT_TIME: "ask for fewer slots or less time (expected_time, time_limit)",
    Meter.SUBMISSIONS: "wait until it begins anew, or ask for more quota",
    Meter.STORAGE: "delete what is not needed any more, or ask for more quota",
    Meter.RUNNING_JOBS: "wait until some of them have ended",
    Meter.RUNNING_SLOTS: "wait until some of them have ended",
}


def places(quotas: Sequence[Quota], zone: tzinfo, at: str | None = None) -> tuple[Place, ...]:
    """The counters that these quotas look at, in the order of locking.

    Args:
        quotas: any.
        zone: of the calendar.
        at: the node of all of them; none: each has its own.
    """
    by_place: dict[tuple[str, Kind], list[Quota]] = {}
    for quota in quotas:
        by_place.setdefault((quota.path if at is None else at, quota.kind), []).append(quota)
    found = [Place(path, kind, tuple(each), zone) for (path, kind), each in by_place.items()]
    return tuple(in_order(found))
