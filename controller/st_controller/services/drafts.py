"""Job files as they come in: checked on their own, before anything is looked up or written."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite

from pydantic import ValidationError

from st_controller.domain.policy.permissions import CLASS_PERMISSIONS
from st_controller.errors import InvalidRequest, NotPermitted
from st_controller.services.actor import Actor
from st_shared.characters import leaves
from st_shared.protocol.problems import FieldProblem
from st_shared.spec.job import JobSpec
from st_shared.spec.reading import MOST_PROBLEMS, SpecProblem, SpecProblems, validate_job

MAX_SPEC_BYTES = 2**20
"""Largest specification, as JSON without white space."""
WHOLE = "body"
"""The field that is named where the mistake is in no single one."""
BYPASS_QUOTA = "job.bypass.quota"
"""The permission to submit beyond quotas that block, for whoever asks for it in the job file."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration of this controller lets people submit."""

    allow_commands: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A specification that is sound in itself."""

    place: str
    """Where it stands in the request, such as ``jobs.3.``; empty where it is the request."""
    spec: JobSpec
    text: str
    """The document as it was sent, in canonical JSON."""

    def problem(self, field: str, message: str) -> SpecProblem:
        """A mistake in one of its fields."""
        return SpecProblem(f"{self.place}{field}", message)


def read(document: object) -> Draft:
    """Check one job file, or refuse it with every mistake."""
    (draft,) = read_all([document], [""])
    return draft


def read_all(documents: Iterable[object], places: Iterable[str]) -> list[Draft]:
    """Check many job files at their places in one request, or refuse with all their mistakes."""
    drafts: list[Draft] = []
    problems: list[SpecProblem] = []
    for document, place in zip(documents, places, strict=True):
        try:
            drafts.append(checked(document, place))
        except SpecProblems as refused:
            problems += [
                SpecProblem(f"{place}{item.field}".removesuffix("."), item.message)
                for item in refused.problems
            ]
    if problems:
        raise invalid(problems)
    return drafts


def invalid(problems: Sequence[SpecProblem]) -> InvalidRequest:
    """The refusal that names these mistakes, the first hundred of them."""
    count = len(problems)
    return InvalidRequest(
        f"the job file has {count} mistake{'s' * (count > 1)}",
        code="invalid_spec",
        hint="mend the fields listed and submit again; `st-train validate FILE` checks a file",
        errors=[
            FieldProblem(field=item.field or WHOLE, message=item.message)
            for item in problems[:MOST_PROBLEMS]
        ],
    )


def must_be_allowed(actor: Actor, drafts: Iterable[Draft], rules: Rules) -> None:
    """Refuse with 403 what this actor may not ask for, every field of it named."""
    found = {
        FieldProblem(field=f"{draft.place}{field}", message=message): None
        for draft in drafts
        for field, message in _forbidden(actor, draft.spec, rules)
    }
    if found:
        errors = list(found)
        told = "; ".join(f"{item.field}: {item.message}" for item in errors[:3])
        raise NotPermitted(told, errors=errors[:MOST_PROBLEMS])


def _forbidden(actor: Actor, spec: JobSpec, rules: Rules) -> list[tuple[str, str]]:
    found = []
    if spec.team is not None and spec.team not in actor.teams:
        yours = ", ".join(sorted(actor.teams))
        found.append(("team", f"you are in no team {spec.team!r}; yours: {yours}"))
    needed = CLASS_PERMISSIONS.get(spec.priority)
    if needed and not actor.may(needed):
        found.append(("priority", f"the class {spec.priority} needs the permission {needed}"))
    if spec.bypass_quota and not actor.may(BYPASS_QUOTA):
        found.append(("bypass_quota", f"passing quotas needs the permission {BYPASS_QUOTA}"))
    if spec.secrets and not actor.may("secret.own"):
        found.append(("secrets", "using secrets needs the permission secret.own"))
    for field in spec.scripts():
        if not rules.allow_commands:
            said = "this controller runs no commands; ST_ALLOW_COMMAND_JOBS=1 would let it"
            found.append((field, said))
        elif not actor.may("job.command"):
            found.append((field, "a shell command needs the permission job.command"))
    return found


def checked(document: object, place: str) -> Draft:
    """One job file that stands at ``place``, or ``SpecProblems``."""
    text = canonical(document)
    if len(text) > MAX_SPEC_BYTES:
        raise SpecProblems([_too_large(document, len(text))])
    # What no database takes stands in JSON as an escape; all else needs no second look.
    if text and "\\u0000" not in text and "\\ud" not in text:
        with suppress(ValidationError):
            return Draft(place, JobSpec.model_validate(document), text)
    spec = validate_job(document)
    if not text:
        raise SpecProblems(_unsayable(document))
    return Draft(place, spec, text)


def _unsayable(document: object) -> list[SpecProblem]:
    """What JSON has no word for, where a section takes any value."""
    said = "is no number that JSON has a word for; write a finite one"
    return [
        SpecProblem(place, said)
        for place, value in leaves(document)
        if isinstance(value, float) and not isfinite(value)
    ] or [SpecProblem("", "is nested too deeply, or has a key that JSON has no word for")]


def _too_large(document: object, size: int) -> SpecProblem:
    """The mistake, with the section that takes the most."""
    said = f"the specification has {size / 2**20:.1f} MiB; 1 MiB is most"
    if not isinstance(document, dict):
        return SpecProblem("", said)
    sizes = {name: len(canonical(section)) for name, section in document.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    return SpecProblem(
        str(largest), f"{said}, and this takes {sizes[largest] / 2**20:.1f} MiB of it"
    )


def canonical(document: object) -> str:
    """The document with sorted keys and no white space; empty where JSON cannot say it."""
    try:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ""
