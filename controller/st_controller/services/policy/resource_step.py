"""The first step of the pass: may the job ask for what it asks for."""

from collections.abc import Sequence
from typing import Any

from st_controller.domain.policy.asking import asked
from st_controller.domain.policy.resource_rules import Bounds, Resource, ResourceRules, Subject
from st_controller.errors import NotPermitted
from st_controller.services.drafts import Draft
from st_controller.store.requests import narrowed
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.resources import Reason
from st_shared.spec.reading import MOST_PROBLEMS


def apply(
    rules: ResourceRules,
    who: Sequence[Subject],
    drafts: Sequence[Draft],
    rows: Sequence[dict[str, Any]],
) -> list[tuple[Reason, ...]]:
    """Narrow the requests of new jobs to what is allowed; a warning where that may surprise.

    ``who`` says for each as whom it is submitted.

    Raises:
        NotPermitted: a rule denies what one of them asks for; every field is named.
    """
    warnings, problems = look(rules, who, drafts, rows)
    if problems:
        raise _refusal(problems)
    return warnings


def look(
    rules: ResourceRules,
    who: Sequence[Subject],
    drafts: Sequence[Draft],
    rows: Sequence[dict[str, Any]],
) -> tuple[list[tuple[Reason, ...]], list[FieldProblem]]:
    """The same without a refusal: the warnings of each job, and all that is denied."""
    problems: list[FieldProblem] = []
    warnings: list[tuple[Reason, ...]] = []
    for subject, draft, row in zip(who, drafts, rows, strict=True):
        told: tuple[Reason, ...] = ()
        if rules.bind(subject):
            verdict = rules.judge(subject, asked(draft.spec, row["config"] or ""))
            problems += [
                FieldProblem(field=f"{draft.place}{found.field}", message=found.message)
                for found in verdict.violations
            ]
            if verdict.bounds:
                groups = {name.value: bounds.group for name, bounds in verdict.bounds.items()}
                row["request"] = narrowed(row["request"], groups)
                told = tuple(_warning(name, bounds) for name, bounds in verdict.bounds.items())
        warnings.append(told)
    return warnings, problems


def _refusal(problems: Sequence[FieldProblem]) -> NotPermitted:
    unique = list(dict.fromkeys((problem.field, problem.message) for problem in problems))
    told = "; ".join(f"{field}: {message}" for field, message in unique[:3])
    return NotPermitted(
        told,
        code="denied_by_rule",
        hint="ask for something else, or whoever keeps the rules; `st can-i submit FILE` explains",
        errors=[
            FieldProblem(field=field, message=message) for field, message in unique[:MOST_PROBLEMS]
        ],
    )


def _warning(resource: Resource, bounds: Bounds) -> Reason:
    said = []
    if bounds.allow:
        said.append(f"only {', '.join(bounds.allow)}")
    if bounds.deny:
        said.append(f"none of {', '.join(bounds.deny)}")
    return Reason(
        code="narrowed",
        message=f"Rules narrow its {resource}: {' and '.join(said)}.",
        hint=f"`resources.{resource}` may name what it is to get",
    )
