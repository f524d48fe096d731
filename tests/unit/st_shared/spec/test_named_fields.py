"""Whatever is wrong in a job file, the refusal names a field that its writer finds there."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from named_fields import stands_in
from pydantic import BaseModel, ValidationError

from st_shared.protocol import policy_approvals, policy_rules, resources
from st_shared.protocol.message import Message
from st_shared.spec import JobSpec, SpecProblems, validate_job
from st_shared.spec.families import FAMILIES
from st_shared.spec.places import place_in
from st_shared.spec.reading import field_of, problems_of

Path = tuple[int | str, ...]

WRONG: list[Any] = [[[["x"]]], {"a.b": [["x"]]}, {"": "x"}, "\0", float("nan"), -1e300, 10**30]
"""Values that hardly any field takes."""


def fields_of(section: type[BaseModel], before: Path = ()) -> Iterator[Path]:
    """Every field that a document of this section may have, however deep."""
    for name, field in section.model_fields.items():
        path = (*before, field.alias or name)
        yield path
        for inner, steps in sections_in(field.annotation):
            yield from fields_of(inner, (*path, *steps))


def sections_in(annotation: Any) -> Iterator[tuple[type[BaseModel], Path]]:
    """The sections that a field may hold, and how they are reached from there."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType, Annotated}:
        for argument in arguments:
            yield from sections_in(argument)
    elif origin in {list, tuple}:
        for inner, steps in sections_in(arguments[0]):
            yield inner, (0, *steps)
    elif origin is dict:
        for inner, steps in sections_in(arguments[1]):
            yield inner, ("some", *steps)


def document_with(path: Path, value: Any) -> Any:
    """The smallest document in which ``value`` stands at ``path``."""
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    return value


def misnamed(section: type[BaseModel], document: Any) -> list[str]:
    """Fields that a refusal names and the document does not have, but for what is required."""
    try:
        section.model_validate(document)
    except ValidationError as error:
        return [
            problem.field
            for problem in problems_of(error, section, document)
            if not stands_in(document, problem.field, may_be_missing="missing" in problem.message)
        ]
    return []


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_every_field_of_a_job_file_is_named_as_it_stands_there(value: Any) -> None:
    paths = [path for path in fields_of(JobSpec) if path[0] != "name"]
    assert len(paths) > 200
    wrong = {path: misnamed(JobSpec, document_with(path, value)) for path in paths}
    allowed = [["training"], []]  # none of the three sections is given
    assert {path: found for path, found in wrong.items() if found not in allowed} == {}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_option_of_a_family_is_named_as_it_stands_there(family: str) -> None:
    for path in fields_of(FAMILIES[family].config):
        model = {"family": family, "base": "b", "config": document_with(path, [["x"]])}
        document = {"name": "x", "training": {"model": model, "datasets": [], "steps": 1}}
        with pytest.raises(SpecProblems) as refused:
            validate_job(document)
        for problem in refused.value.problems:
            assert stands_in(document, problem.field), problem


def test_names_of_variants_and_the_mark_of_a_key_are_left_out() -> None:
    document = {"a": [{"b": "x"}], "labels": {"eu.west": "x"}}
    assert place_in(document, ("a", 0, "Variant", "b", "int")) == "a.0.b"
    assert place_in(document, ("labels", "eu.west", "[key]")) == "labels.eu.west"
    assert place_in(document, ("a", 0, "Variant", "c"), is_missing=True) == "a.0.c"
    assert place_in(document, ("a", 7, "c")) == "a"


RULE = {"resource": "accelerator", "pattern": "*", "effect": "allow"}
APPROVAL = {"name": "n", "condition": "cost_over", "amount": 1}

WHOLE_BODIES = [
    (resources.PriorityChange, {}, "priority"),
    (resources.PriorityChange, {"priority": "high", "override": 10}, "override"),
    (policy_approvals.ApprovalRuleRequest, APPROVAL | {"amount": None}, "amount"),
    (policy_approvals.ApprovalRuleRequest, APPROVAL | {"pattern": "x"}, "pattern"),
    (
        policy_approvals.ApprovalRuleRequest,
        {"name": "n", "condition": "accelerator", "pattern": "a|b"},
        "pattern",
    ),
    (policy_approvals.Decision, {"decision": "reject"}, "reason"),
    (policy_approvals.ManyDecisions, {"decision": "reject", "ids": ["a"]}, "reason"),
    (policy_rules.ResourceRuleRequest, RULE | {"subject": "x"}, "subject"),
    (policy_rules.ResourceRuleRequest, RULE | {"subject_kind": "role"}, "subject"),
    (
        policy_rules.ResourceRuleRequest,
        RULE | {"subject_kind": "team", "subject": "team"},
        "subject",
    ),
    (
        policy_rules.ResourceRuleRequest,
        RULE | {"subject_kind": "team", "subject": "a/b", "org": "c"},
        "org",
    ),
    (policy_rules.ResourceRuleRequest, RULE | {"pattern": "a|b"}, "pattern"),
]


@pytest.mark.parametrize(("model", "body", "field"), WHOLE_BODIES)
def test_what_is_wrong_of_a_whole_body_is_said_of_one_field(
    model: type[BaseModel], body: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(body)
    [item] = refused.value.errors()
    assert field_of(dict(item), body) == field


def test_every_message_that_is_judged_as_a_whole_is_tried_above() -> None:
    judged = {
        model
        for model in messages(Message)
        if model.__pydantic_decorators__.model_validators and model.__module__.startswith("st_")
    }
    assert judged == {model for model, _, _ in WHOLE_BODIES}


def messages(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Every kind of message that is known."""
    for inner in model.__subclasses__():
        yield inner
        yield from messages(inner)
