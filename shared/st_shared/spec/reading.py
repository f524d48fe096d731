"""Reading job files: every mistake comes back with its field and its mend, all at once."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from st_shared.characters import unstorable_texts
from st_shared.spec.families import FamilyConfigError
from st_shared.spec.job import JobSpec
from st_shared.spec.places import FieldError, place_in

Model = TypeVar("Model", bound=BaseModel)

MAX_FILE_BYTES = 1_000_000
"""Largest job file that is read."""

MOST_PROBLEMS = 100
"""Most mistakes that are told of one document."""


@dataclass(frozen=True)
class SpecProblem:
    """One mistake in a job file."""

    field: str
    """Dotted path, such as ``training.optimizer.learning_rate``; empty for the whole file."""
    message: str
    """What is wrong and what to write instead."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class SpecProblems(ValueError):
    """A job file that cannot be accepted, with every mistake that was found."""

    def __init__(self, problems: list[SpecProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def read_job_file(path: Path) -> JobSpec:
    """Read and check a job file.

    Raises:
        SpecProblems: the file is missing, too large, not YAML, or says something impossible.
    """
    return validate_job(parse_yaml(read_text(path)))


def read_text(path: Path) -> str:
    """The text of a job file of at most ``MAX_FILE_BYTES``, or ``SpecProblems``."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _whole(f"cannot read {path}: {error.strerror}; give the path of a job file") from None
    if len(raw) > MAX_FILE_BYTES:
        raise _whole(f"{path} is larger than {MAX_FILE_BYTES} bytes; a job file is small")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _whole(f"{path} is not UTF-8 text; save it as UTF-8") from None


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands here twice", key.start_mark
                    )
                seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def parse_yaml(text: str) -> object:
    """The YAML document in ``text``, or ``SpecProblems`` with line and column."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise _whole(f"not valid YAML{where}: {reason}") from None
    except ValueError as error:  # such as the date 2026-13-01
        raise _whole(f"not valid YAML: {error}; quote what is meant as text") from None
    except RecursionError:
        raise _whole("not valid YAML: nested too deeply; a job file is flat") from None


def validate_job(document: object) -> JobSpec:
    """Check a parsed job file and return it as a ``JobSpec``, or raise ``SpecProblems``."""
    return validate_section(JobSpec, document)


def validate_section(section: type[Model], document: object) -> Model:
    """Check ``document`` against ``section``; every mistake is reported at once."""
    if not isinstance(document, dict):
        raise _whole(f"expected a mapping of keys to values, found {_kind(document)}")
    try:
        found = section.model_validate(document)
    except ValidationError as error:
        raise SpecProblems(problems_of(error, section, document)) from None
    unstorable = [SpecProblem(*text) for text in islice(unstorable_texts(document), MOST_PROBLEMS)]
    if unstorable:
        raise SpecProblems(unstorable)
    return found


def problems_of(
    error: ValidationError, section: type[BaseModel], document: object
) -> list[SpecProblem]:
    """The mistakes in a pydantic error as fields of the document and sentences of ours."""
    found: list[SpecProblem] = []
    for item in error.errors(include_url=False)[:MOST_PROBLEMS]:
        cause = item.get("ctx", {}).get("error")
        field = field_of(dict(item), document)
        if isinstance(cause, FamilyConfigError):
            found += [
                SpecProblem(f"{field}.config.{inner.field}".removesuffix("."), inner.message)
                for inner in problems_of(cause.error, cause.config, cause.document)
            ]
        else:
            found.append(SpecProblem(field, _sentence(dict(item), section)))
    return found


def field_of(item: Mapping[str, Any], document: object) -> str:
    """The dotted path of the field that one of pydantic's errors is about."""
    cause = item.get("ctx", {}).get("error")
    location, is_missing = item["loc"], item["type"] == "missing"
    if isinstance(cause, FieldError):
        location, is_missing = (*location, *cause.path), True
    return place_in(document, location, is_missing=is_missing)


def _sentence(item: dict[str, Any], section: type[BaseModel]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + _suggest(str(item["loc"][-1]), _keys_at(section, item["loc"][:-1]))
    if kind == "missing":
        return "required, but missing; add it"
    if kind == "value_error":
        nested = context.get("error")
        return str(nested) if nested else str(item["msg"]).removeprefix("Value error, ")
    message = _MESSAGES.get(kind) or str(item["msg"]).removeprefix("Input ")
    return f"{message}; found {_shown(item.get('input'))}"


_MESSAGES = {
    "model_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "int_parsing": "should be a valid integer",
    "float_parsing": "should be a valid number",
}
"""Sentences of pydantic that speak of its classes, in the words of a job file."""


def _suggest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known keys: {', '.join(sorted(known))}" if known else ""


def _keys_at(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the section that stands at ``location`` below ``section``."""
    current: type[BaseModel] = section
    for part in location:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part)
        inner = _section_in(field.annotation) if field else None
        if inner is None:
            return []
        current = inner
    return list(current.model_fields)


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_in(inner)
        if found:
            return found
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _whole(message: str) -> SpecProblems:
    return SpecProblems([SpecProblem("", message)])
