"""Writes the pages that can drift from the code: `python docs/generate.py [--check]`.

``--check`` writes nothing and fails when a page differs from what the code says.
"""

import argparse
import difflib
import inspect
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from st_controller import errors
from st_controller.api.dependencies import declared_access
from st_controller.app import create_app
from st_controller.domain import attempts, jobs
from st_controller.domain.policy.permissions import PERMISSIONS
from st_controller.domain.policy.roles import ROLE_PERMISSIONS, Role
from st_controller.settings import Settings
from st_shared.protocol import states
from st_shared.protocol.endpoints import ENDPOINTS, PREFIX, STREAM_EVENTS, Endpoint
from st_shared.spec import FAMILIES, JobSpec

PAGES = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py; `make format` renews it. -->\n"


def main() -> int:
    """Write or check every page; the exit code says whether all were as they should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    stale = [name for name, text in pages().items() if not settle(PAGES / name, text, check=check)]
    return 1 if stale else 0


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    return {
        "states.md": NOTE + "\n".join(states_page()),
        "job-file.md": NOTE + "\n".join(job_file_page()),
        "families.md": NOTE + "\n".join(families_page()),
        "api.md": NOTE + "\n".join(api_page()),
        "worker-protocol.md": NOTE + "\n".join(worker_protocol_page()),
        "errors.md": NOTE + "\n".join(errors_page()),
        "settings.md": NOTE + "\n".join(settings_page()),
    }


def settle(path: Path, text: str, *, check: bool) -> bool:
    """Write the page, or say how it differs; whether it is right now."""
    before = path.read_text() if path.exists() else ""
    if before == text:
        return True
    if check:
        lines = difflib.unified_diff(
            before.splitlines(), text.splitlines(), str(path), "as the code says", lineterm=""
        )
        print("\n".join(list(lines)[:40]))
        print(f"{path.name} is out of date: run `make format`")
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(f"wrote {path.name}")
    return True


def states_page() -> Iterator[str]:
    """Tables and diagrams of the state machines."""
    yield "# States\n"
    yield from machine("Job", states.JobState, jobs.TRANSITIONS)
    yield from machine("Attempt", states.AttemptState, attempts.TRANSITIONS)
    for title, enum in (
        ("Outcomes of an attempt", states.Outcome),
        ("Worker, as observed", states.WorkerState),
        ("Worker, as desired", states.WorkerDesired),
    ):
        yield f"## {title}\n"
        yield from table(("value", "meaning"), described(enum))
    yield "## Why an attempt failed\n"
    rules = (
        (states.FAILURES[kind], row)
        for kind, row in zip(states.FailureKind, described(states.FailureKind), strict=True)
    )
    yield from table(
        ("value", "meaning", "tried again", "what to do"),
        [(*row, "yes" if rule.is_retryable else "no", rule.mend) for rule, row in rules],
    )


def machine(
    title: str, enum: type[StrEnum], transitions: Mapping[Any, Iterable[Any]]
) -> Iterator[str]:
    """One state machine: its diagram and its states."""
    yield f"## {title}\n"
    yield "```mermaid\nstateDiagram-v2"
    for before in enum:
        for after in (state for state in enum if state in transitions[before]):
            yield f"    {before.value} --> {after.value}"
    yield "```\n"
    yield from table(("state", "meaning"), described(enum))


def described(enum: type[StrEnum]) -> list[tuple[str, str]]:
    """Members with the line that stands below each in the source."""
    source = inspect.getsource(enum).splitlines()
    found = []
    for member in enum:
        place = next(i for i, line in enumerate(source) if line.strip().startswith(member.name))
        text = source[place + 1].strip()
        found.append((f"`{member.value}`", text.strip('"') if text.startswith('"""') else ""))
    return found


def job_file_page() -> Iterator[str]:
    """Every key of a job file."""
    yield "# Job file\n"
    yield "YAML or JSON; `st-train validate FILE` checks one. Durations are written `90s`, `6h`,"
    yield "`1h30m`. A key that is not in this table is refused.\n"
    yield from table(("key", "type", "default", "meaning"), options(JobSpec.model_json_schema()))
    for family in FAMILIES.values():
        yield f"## `model.config` of the family `{family.name}`\n"
        yield f"{family.summary[0].upper()}{family.summary[1:]} ({family.media}).\n"
        schema = family.config.model_json_schema()
        yield from table(("key", "type", "default", "meaning"), options(schema))


def families_page() -> Iterator[str]:
    """Every model family."""
    yield "# Model families\n"
    yield "`model.config` of each: [job file](job-file.md).\n"
    rows = [
        (
            f"`{family.name}`",
            family.media,
            family.summary,
            "must be given" if family.needs_base else "none: starts from scratch",
            ", ".join(f"`{name}`" for name in family.objectives),
        )
        for family in FAMILIES.values()
    ]
    yield from table(("family", "media", "what it is", "`model.base`", "objective"), rows)


def options(schema: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows of a schema and of everything below it."""
    rows: list[tuple[str, str, str, str]] = []

    def walk(node: dict[str, Any], prefix: str) -> None:
        for name, field in node.get("properties", {}).items():
            inner, path = target(field), f"{prefix}{name}"
            if "properties" in inner:
                walk(inner, f"{path}.")
                continue
            item = target(inner.get("items", {}))
            if "properties" in item:
                rows.append((f"`{path}`", "list", default_of(name, field, node), text_of(field)))
                walk(item, f"{path}[].")
                continue
            rows.append(
                (
                    f"`{path}`",
                    type_of(field, inner),
                    default_of(name, field, node),
                    text_of(field) or text_of(inner),
                )
            )

    def target(field: dict[str, Any]) -> dict[str, Any]:
        reference = field.get("$ref")
        options = [each for each in field.get("anyOf", []) if each.get("type") != "null"]
        if reference is None and len(options) == 1:  # a section that may be left out
            reference = options[0].get("$ref")
        if reference is None and [each.get("type") for each in options[:1]] == ["string"]:
            reference = next((each["$ref"] for each in options if "$ref" in each), None)
        if reference is None and len(field.get("allOf", [])) == 1:
            reference = field["allOf"][0].get("$ref")
        if not reference:
            return field
        found: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
        return found

    walk(schema, "")
    return rows


def type_of(field: dict[str, Any], inner: dict[str, Any]) -> str:
    """Type and range in a few words."""
    if "enum" in inner:
        return " · ".join(f"`{value}`" for value in inner["enum"])
    if "const" in inner:
        return f"`{inner['const']}`"
    if "anyOf" in field:
        kinds = [type_of(each, each) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(kinds)
    limits = [
        f"{sign} {inner[key]}"
        for key, sign in (
            ("exclusiveMinimum", ">"),
            ("minimum", "≥"),
            ("exclusiveMaximum", "<"),
            ("maximum", "≤"),
        )
        if key in inner
    ]
    return " ".join([inner.get("type", ""), ", ".join(limits)]).strip()


def default_of(name: str, field: dict[str, Any], node: dict[str, Any]) -> str:
    """The default, or that there is none."""
    if name in node.get("required", []):
        return "**required**"
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def text_of(field: dict[str, Any]) -> str:
    """The description on one line."""
    return " ".join(str(field.get("description", "")).split())


def api_page() -> Iterator[str]:
    """Routes with what each demands, and what each role may do."""
    yield "# API\n"
    yield "Bodies and answers: `/openapi.json` of a controller. Errors: [errors](errors.md).\n"
    yield from table(("method", "route", "access"), routes())
    yield "## Permissions\n"
    rows = [
        (f"`{name}`", text, *("●" if name in ROLE_PERMISSIONS[role] else "" for role in Role))
        for name, text in PERMISSIONS.items()
    ]
    yield from table(("permission", "allows", *(role.value for role in Role)), rows)


def worker_protocol_page() -> Iterator[str]:
    """What workers call, and what their streams bring."""
    yield "# Worker protocol\n"
    yield f"Paths are below `{PREFIX}`. A lease is an attempt id and its epoch; a call with an"
    yield "epoch that is not the current one is answered 409 `stale_lease`.\n"
    rows = [
        (each.method, f"`{each.path}`", each.who, name_of(each.body), answer_of(each))
        for each in ENDPOINTS
    ]
    yield from table(("method", "path", "who", "body", "answer"), rows)
    yield "## Events of a worker's stream\n"
    events = [
        (f"`{name}`", name_of(kind), first_line(kind)) for name, kind in STREAM_EVENTS.items()
    ]
    yield from table(("event", "body", "what it says"), events)


def name_of(model: type[BaseModel] | None) -> str:
    """A model as a cell."""
    return f"`{model.__name__}`" if model else ""


def answer_of(endpoint: Endpoint[Any]) -> str:
    """What an endpoint gives, as a cell."""
    return "events" if endpoint.is_stream else name_of(endpoint.answer) or str(endpoint.status)


def first_line(kind: type[object]) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(kind) or "").splitlines()[0]


def routes() -> list[tuple[str, str, str]]:
    """Every route with its declared access, in order of paths."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)))
        found = [
            (method, f"`{path}`", ", ".join(access) or "**none**")
            for method, path, access in declared_access(app)
        ]
    return sorted(set(found), key=lambda row: (row[1], row[0]))


def errors_page() -> Iterator[str]:
    """Stable codes of problem documents."""
    yield "# Errors\n"
    yield "Every error of the API is a problem document (RFC 9457) with a stable `code`.\n"
    rows = [
        (str(kind.status), f"`{kind.code}`", kind.title, kind.hint or "")
        for kind in sorted(family_of(errors.Refusal), key=lambda kind: (kind.status, kind.code))
    ]
    yield from table(("status", "code", "title", "hint"), rows)


def family_of(kind: type[errors.Refusal]) -> Iterator[type[errors.Refusal]]:
    """A class and all that inherit from it."""
    yield kind
    for inner in kind.__subclasses__():
        yield from family_of(inner)


def settings_page() -> Iterator[str]:
    """Environment variables of the controller."""
    yield "# Settings of the controller\n"
    yield "Set as environment variables; `st-controller serve --help` shows the options.\n"
    yield from table(("variable", "default", "meaning"), variables(Settings))


def variables(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Every setting with its default and the text below it in the source."""
    source = [line.strip() for line in inspect.getsource(model).splitlines()]
    rows = []
    for name, field in model.model_fields.items():
        place = next(i for i, line in enumerate(source) if line.startswith(f"{name}:"))
        while source[place].count("(") + source[place].count("[") > (
            source[place].count(")") + source[place].count("]")
        ):
            place += 1
            source[place] = source[place - 1] + source[place]
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, "", {}, ()) else f"`{default}`"
        rows.append((f"`ST_{name.upper()}`", shown, docstring(source[place + 1 :])))
    return rows


def docstring(source: list[str]) -> str:
    """The text that these lines begin with, as one line; empty where it is code."""
    if not source or not source[0].startswith('"""'):
        return ""
    text: list[str] = []
    for line in source:
        text.append(line.removeprefix('"""').removesuffix('"""'))
        if line.endswith('"""') and len(line) > 3:
            break
    return " ".join(text)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


if __name__ == "__main__":
    sys.exit(main())
