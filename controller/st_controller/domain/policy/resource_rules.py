"""What people may ask for: rules with globs over what a job file names.

A matching deny beats every allow. Where allows of a resource apply to somebody, one of them must
match. Where no rule applies, nothing is restricted. The order of the rules means nothing.

What a job names outright is judged at submission. An accelerator or a provider is asked for by
globs, which may match much; a job that could only get what is denied is refused, and of any other
the request is narrowed (``Bounds``), so that it is never given what is denied, not even by a worker
that joins later.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from st_controller.domain.policy.globs import covers, matches, may_meet


class Resource(StrEnum):
    """What a rule speaks of."""

    CONFIG = "config"
    """The saved config that a job is made from; empty for a job that names none."""
    ACCELERATOR = "accelerator"
    """Names of accelerators that a job may get."""
    PROVIDER = "provider"
    """Where the worker comes from; ``static`` for workers that do not say."""
    DATASET = "dataset"
    """Names of registered datasets, and paths of folders that are read where they are."""
    OUTPUT_PATH = "output_path"
    """Addresses to which a job publishes, or sends its figures: ``hf://owner/name``,
    ``s3://bucket/prefix``, ``wandb://entity/project``."""
    FAMILY = "family"
    """The model family; ``command`` and ``noop`` for jobs that train nothing."""


class Effect(StrEnum):
    """What a rule says of what it matches."""

    ALLOW = "allow"
    DENY = "deny"


class SubjectKind(StrEnum):
    """To whom a rule applies."""

    EVERYONE = "everyone"
    ROLE = "role"
    TEAM = "team"
    USER = "user"


class Subject(NamedTuple):
    """Who asks."""

    org: str
    team: str
    """The team that they ask for."""
    user: str
    role: str


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """One rule."""

    id: str
    org: str | None
    """Only members of this organisation; none: of all."""
    subject_kind: SubjectKind
    subject: str
    """Slug of a role, ``org/team``, or a user name; empty for everyone."""
    resource: Resource
    pattern: str
    effect: Effect
    note: str = ""
    """For whoever is refused."""

    def applies_to(self, who: Subject) -> bool:
        """Whether the rule binds this person at all."""
        if self.org not in {None, who.org}:
            return False
        return (self.subject_kind, self.subject) in _names_of(who)

    @property
    def told(self) -> str:
        """The rule in words."""
        whom = f"{self.subject_kind} {self.subject}".strip()
        where = f" of {self.org}" if self.org else ""
        note = f" ({self.note})" if self.note else ""
        return f"rule {self.id}: {whom}{where}: {self.effect} {self.resource} {self.pattern}{note}"


class Asked(NamedTuple):
    """One thing that a job names."""

    resource: Resource
    field: str
    """Of the job file, such as ``training.datasets.0.name``."""
    value: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that asks for what is not allowed."""

    field: str
    message: str
    rules: tuple[str, ...]
    """Ids of the rules that say so."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Globs that narrow what a job asked for by a glob."""

    allow: tuple[str, ...] = ()
    """One of them must match; none: anything goes."""
    deny: tuple[str, ...] = ()
    """None of them may match."""

    @property
    def group(self) -> str:
        """What is added to the request, as ``domain/scheduling/placement.py`` reads it."""
        parts = ["|".join(self.allow)] if self.allow else []
        parts += [f"!{'|'.join(self.deny)}"] if self.deny else []
        return "&".join(parts)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of a job."""

    violations: tuple[Violation, ...] = ()
    bounds: Mapping[Resource, Bounds] = field(default_factory=dict)
    """How its request is narrowed; resources that are not are left out."""


CLEAN = Verdict()
RELATIVE = "./"
"""What a path begins with that does not say where it leads."""
_BY_GLOB = (Resource.ACCELERATOR, Resource.PROVIDER)
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class _Applicable:
    """The rules of one resource that bind one person."""

    allow: tuple[ResourceRule, ...] = ()
    deny: tuple[ResourceRule, ...] = ()


@dataclass(frozen=True)
class ResourceRules:
    """All rules, found by whom they bind."""

    rules: tuple[ResourceRule, ...] = ()

    @cached_property
    def _by_subject(self) -> dict[tuple[str | None, str, str], list[ResourceRule]]:
        found: dict[tuple[str | None, str, str], list[ResourceRule]] = defaultdict(list)
        for rule in sorted(self.rules, key=lambda rule: rule.id):
            found[rule.org, rule.subject_kind, rule.subject].append(rule)
        return dict(found)

    @cached_property
    def _known(self) -> dict[Subject, dict[Resource, _Applicable]]:
        return {}

    def judge(self, who: Subject, asked: Iterable[Asked]) -> Verdict:
        """What the rules say of a job of this person that names all this."""
        binding = self._binding(who)
        if not binding:
            return CLEAN
        violations: list[Violation] = []
        bounds: dict[Resource, Bounds] = {}
        for wish in asked:
            rules = binding.get(wish.resource)
            if rules is None:
                continue
            if wish.resource in _BY_GLOB:
                violation = _hopeless(rules, wish)
                narrowed = _bounds(rules, wish)
                if narrowed.allow or narrowed.deny:
                    bounds[wish.resource] = narrowed
            else:
                violation = _violated(rules, wish)
            violations += [violation] if violation else []
        return Verdict(tuple(violations), bounds)

    def bind(self, who: Subject) -> bool:
        """Whether any rule binds this person."""
        return bool(self._binding(who))

    def _binding(self, who: Subject) -> dict[Resource, _Applicable]:
        known = self._known.get(who)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[who] = self._look_up(who)
        return known

    def _look_up(self, who: Subject) -> dict[Resource, _Applicable]:
        allow: dict[Resource, list[ResourceRule]] = defaultdict(list)
        deny: dict[Resource, list[ResourceRule]] = defaultdict(list)
        for kind, name in _names_of(who):
            for org in (None, who.org):
                for rule in self._by_subject.get((org, kind, name), ()):
                    (allow if rule.effect is Effect.ALLOW else deny)[rule.resource].append(rule)
        return {
            resource: _Applicable(tuple(allow[resource]), tuple(deny[resource]))
            for resource in {*allow, *deny}
        }


def _names_of(who: Subject) -> tuple[tuple[str, str], ...]:
    return (
        (SubjectKind.EVERYONE, ""),
        (SubjectKind.ROLE, who.role),
        (SubjectKind.TEAM, f"{who.org}/{who.team}"),
        (SubjectKind.USER, who.user),
    )


def _violated(rules: _Applicable, wish: Asked) -> Violation | None:
    """Whether what is named outright is denied, or not among what is allowed."""
    if wish.value.startswith(RELATIVE):
        said = (
            f"rules restrict {wish.resource} here, and this may lead anywhere: "
            f"give the whole address in its own field, without detours"
        )
        return Violation(wish.field, said, tuple(rule.id for rule in (*rules.deny, *rules.allow)))
    denied = [rule for rule in rules.deny if _speaks_of(rule, wish)]
    if denied:
        said = f"{_words(wish)} is denied by {denied[0].told}"
        return Violation(wish.field, said, tuple(rule.id for rule in denied))
    if rules.allow and not any(_speaks_of(rule, wish) for rule in rules.allow):
        return _outside(rules.allow, wish)
    return None


def _speaks_of(rule: ResourceRule, wish: Asked) -> bool:
    # What is published lies below its address: `s3://lab/a/*` speaks of `s3://lab/a` too.
    below = wish.resource is Resource.OUTPUT_PATH and matches(rule.pattern, f"{wish.value}/")
    return below or matches(rule.pattern, wish.value)


def _hopeless(rules: _Applicable, wish: Asked) -> Violation | None:
    """Whether all that the globs could match is denied, or nothing of it is allowed."""
    globs = [glob.strip() for glob in wish.value.split("|")]
    blockers = [_denied_wholly(rules.deny, glob) for glob in globs]
    left = [rule for rule in rules.allow if not _denied_wholly(rules.deny, rule.pattern)]
    met = [not rules.allow or any(may_meet(rule.pattern, glob) for rule in left) for glob in globs]
    denied = [rule for rule in blockers if rule is not None]
    if len(denied) == len(globs):
        said = f"{_words(wish)} is denied by {denied[0].told}"
        return Violation(wish.field, said, tuple(dict.fromkeys(rule.id for rule in denied)))
    if not any(ok and not rule for ok, rule in zip(met, blockers, strict=True)):
        return _outside(rules.allow, wish)
    return None


def _denied_wholly(deny: Sequence[ResourceRule], glob: str) -> ResourceRule | None:
    return next((rule for rule in deny if covers(rule.pattern, glob)), None)


def _bounds(rules: _Applicable, wish: Asked) -> Bounds:
    """The globs that matter to what is asked; those that can change nothing are left out."""
    globs = [glob.strip() for glob in wish.value.split("|")]
    deny = {rule.pattern for rule in rules.deny if any(may_meet(rule.pattern, g) for g in globs)}
    within = all(any(covers(rule.pattern, glob) for rule in rules.allow) for glob in globs)
    allow = () if within else {rule.pattern for rule in rules.allow}
    return Bounds(tuple(sorted(allow)), tuple(sorted(deny)))


def _outside(allow: Sequence[ResourceRule], wish: Asked) -> Violation:
    patterns = sorted({rule.pattern for rule in allow})
    more = f" and {len(patterns) - 8} more" if len(patterns) > 8 else ""
    said = f"{_words(wish)} is not among what is allowed: {', '.join(patterns[:8])}{more}"
    return Violation(wish.field, said, tuple(rule.id for rule in allow))


def _words(wish: Asked) -> str:
    if wish.resource is Resource.CONFIG and not wish.value:
        return "a job without a saved config"
    return f"{wish.resource} {wish.value!r}"
