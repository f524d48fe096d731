"""Which jobs need the word of a person first, whose, and how many.

All rules that match a job count, not the first: it needs the highest rank and the most approvers
that any of them asks for, before the shortest of their times is over.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from st_controller.domain.policy.globs import covers, matches, may_meet
from st_controller.domain.policy.resource_rules import Bounds, Subject


class Condition(StrEnum):
    """What a rule looks at."""

    COST_OVER = "cost_over"
    """The estimated cost is more than so many micro-units of the currency."""
    SLOT_HOURS_OVER = "slot_hours_over"
    """Slots on all nodes times the time limit are more than so many hours."""
    JOBS_PER_DAY_OVER = "jobs_per_day_over"
    """It is more than the so-manieth job of its user within 24 hours."""
    FIRST_JOB = "first_job"
    """No job of its user was ever let through."""
    ACCELERATOR = "accelerator"
    """It asks for accelerators that the glob matches. One that asks for more than those, such as
    ``*``, needs no word and is not given them."""
    PROVIDER = "provider"
    """The same for providers."""
    ROLE = "role"
    """Its user has this role."""
    CONFIG = "config"
    """It is made from a saved config that the glob matches."""
    FAMILY = "family"
    """It trains a model family that the glob matches; ``command`` and ``noop`` count as such."""

    @property
    def has_amount(self) -> bool:
        """Whether it compares a number."""
        return self in _AMOUNTS

    @property
    def has_glob(self) -> bool:
        """Whether it compares a text."""
        return not self.has_amount and self is not Condition.FIRST_JOB


_BY_NAME = (Condition.ACCELERATOR, Condition.PROVIDER)
_AMOUNTS = frozenset({Condition.COST_OVER, Condition.SLOT_HOURS_OVER, Condition.JOBS_PER_DAY_OVER})


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """One rule."""

    id: str
    name: str
    org: str | None
    """Jobs of this organisation; none: of all."""
    condition: Condition
    amount: int
    """Micro-units, hours or jobs; of the other conditions 0."""
    pattern: str
    """A glob, or the slug of a role; of the other conditions empty."""
    exempt_roles: frozenset[str]
    exempt_users: frozenset[str]
    approver: str
    """Slug of the role that an approver must have at least."""
    rank: int
    """Of that role."""
    quorum: int
    """Approvers who must agree."""
    expires_after: float
    """Seconds; then the job is rejected."""
    priority: int
    """The rule with the highest is named first."""

    def binds(self, who: Subject) -> bool:
        """Whether this person's jobs are looked at."""
        if self.org not in {None, who.org}:
            return False
        if who.role in self.exempt_roles or who.user in self.exempt_users:
            return False
        return self.condition is not Condition.ROLE or self.pattern == who.role


class Facts(NamedTuple):
    """What the rules are told of a job."""

    cost: int
    """Micro-units that it is estimated to cost; 0 where nothing has a price."""
    slots: int
    """On all its nodes."""
    time_limit: float
    """Seconds."""
    accelerator: str
    """Globs joined by ``|``."""
    provider: str
    config: str
    """Empty where it is made from none."""
    family: str
    is_first: bool = False
    jobs_today: int = 0
    """Jobs of its user within 24 hours, this one included."""

    @property
    def slot_hours(self) -> float:
        """The most that one attempt can use."""
        return self.slots * self.time_limit / 3600


@dataclass(frozen=True, slots=True)
class Need:
    """What a job waits for."""

    approver: str
    rank: int
    quorum: int
    expires_after: float
    rules: tuple[tuple[str, str], ...]
    """Id and sentence of each rule that matched, the most important first."""


_UNBOUNDED = Bounds()


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the rules say of a job."""

    need: Need | None = None
    accelerator: Bounds = _UNBOUNDED
    """How its request is narrowed, so that it is not given what would need a word."""
    provider: Bounds = _UNBOUNDED


NO_OPINION = Opinion()
_MOST_KNOWN = 10_000


@dataclass(frozen=True)
class ApprovalRules:
    """All rules that are enabled, found by whom they bind."""

    rules: tuple[ApprovalRule, ...] = ()

    @cached_property
    def _by_org(self) -> dict[str | None, list[ApprovalRule]]:
        found: dict[str | None, list[ApprovalRule]] = defaultdict(list)
        for rule in self.rules:
            found[rule.org].append(rule)
        return dict(found)

    @cached_property
    def _known(self) -> dict[Subject, tuple[ApprovalRule, ...]]:
        return {}

    def binding(self, who: Subject) -> tuple[ApprovalRule, ...]:
        """The rules that look at this person's jobs."""
        known = self._known.get(who)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            looked_at = (*self._by_org.get(None, ()), *self._by_org.get(who.org, ()))
            known = tuple(rule for rule in looked_at if rule.binds(who))
            self._known[who] = known
        return known


def combined(needs: Sequence[Need]) -> Need | None:
    """The strictest demands of several needs; none of none."""
    if not needs:
        return None
    strictest = max(needs, key=lambda need: (need.rank, need.approver))
    return Need(
        strictest.approver,
        strictest.rank,
        max(need.quorum for need in needs),
        min(need.expires_after for need in needs),
        tuple(rule for need in needs for rule in need.rules),
    )


def judge(rules: Sequence[ApprovalRule], facts: Facts) -> Opinion:
    """What these rules, which bind whoever submits, say of a job."""
    matched: list[ApprovalRule] = []
    kept_from: dict[Condition, set[str]] = {condition: set() for condition in _BY_NAME}
    for rule in rules:
        if _MATCHES[rule.condition](rule, facts):
            matched.append(rule)
        elif rule.condition in _BY_NAME and _may_get(rule, facts):
            kept_from[rule.condition].add(rule.pattern)
    return Opinion(
        _need(matched, facts),
        Bounds(deny=tuple(sorted(kept_from[Condition.ACCELERATOR]))),
        Bounds(deny=tuple(sorted(kept_from[Condition.PROVIDER]))),
    )


def _need(matched: Sequence[ApprovalRule], facts: Facts) -> Need | None:
    ordered = sorted(matched, key=lambda rule: (-rule.priority, rule.id))
    return combined(
        [
            Need(
                rule.approver,
                rule.rank,
                rule.quorum,
                rule.expires_after,
                ((rule.id, f"{rule.name}: {_SAYS[rule.condition](rule, facts)}"),),
            )
            for rule in ordered
        ]
    )


def _asks_for(pattern: str, request: str) -> bool:
    return any(covers(pattern, glob.strip()) for glob in request.split("|"))


def _may_get(rule: ApprovalRule, facts: Facts) -> bool:
    request = facts.accelerator if rule.condition is Condition.ACCELERATOR else facts.provider
    return any(may_meet(rule.pattern, glob.strip()) for glob in request.split("|"))


def _money(micros: int) -> str:
    return f"{micros / 1_000_000:.2f}"


_MATCHES: Mapping[Condition, Callable[[ApprovalRule, Facts], bool]] = {
    Condition.COST_OVER: lambda rule, job: job.cost > rule.amount,
    Condition.SLOT_HOURS_OVER: lambda rule, job: job.slot_hours > rule.amount,
    Condition.JOBS_PER_DAY_OVER: lambda rule, job: job.jobs_today > rule.amount,
    Condition.FIRST_JOB: lambda _rule, job: job.is_first,
    Condition.ACCELERATOR: lambda rule, job: _asks_for(rule.pattern, job.accelerator),
    Condition.PROVIDER: lambda rule, job: _asks_for(rule.pattern, job.provider),
    Condition.ROLE: lambda _rule, _job: True,  # such a rule binds nobody else
    Condition.CONFIG: lambda rule, job: bool(job.config) and matches(rule.pattern, job.config),
    Condition.FAMILY: lambda rule, job: matches(rule.pattern, job.family),
}
"""Whether a rule, which binds whoever submits, asks for a word."""

_SAYS: Mapping[Condition, Callable[[ApprovalRule, Facts], str]] = {
    Condition.COST_OVER: lambda rule, job: (
        f"may cost {_money(job.cost)}, over {_money(rule.amount)}"
    ),
    Condition.SLOT_HOURS_OVER: lambda rule, job: (
        f"may use {job.slot_hours:g} slot-hours, over {rule.amount}"
    ),
    Condition.JOBS_PER_DAY_OVER: lambda rule, job: (
        f"job {job.jobs_today} of its user within 24 hours, over {rule.amount}"
    ),
    Condition.FIRST_JOB: lambda _rule, _job: "no job of its user was let through yet",
    Condition.ACCELERATOR: lambda rule, _job: f"asks for accelerator {rule.pattern}",
    Condition.PROVIDER: lambda rule, _job: f"asks for provider {rule.pattern}",
    Condition.ROLE: lambda rule, _job: f"its user is a {rule.pattern}",
    Condition.CONFIG: lambda _rule, job: f"is made from config {job.config}",
    Condition.FAMILY: lambda _rule, job: f"trains {job.family}",
}
"""Why it does, where it does."""
