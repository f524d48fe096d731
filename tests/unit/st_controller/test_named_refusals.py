"""A refusal of what was sent names the field, wherever the controller raises one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import st_controller
from st_controller.errors import InvalidRequest

SOURCES = Path(st_controller.__file__).parent


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every place at which an ``InvalidRequest`` is made by its constructor."""
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "InvalidRequest":
                yield f"{file.relative_to(SOURCES)}:{node.lineno}", node


def test_every_refusal_of_a_request_has_fields() -> None:
    calls = list(raised())
    assert len(calls) > 10
    nameless = [
        place for place, call in calls if all(each.arg != "errors" for each in call.keywords)
    ]
    assert nameless == [], "use InvalidRequest.of(field, message)"


def test_the_refusal_of_one_field_names_it_and_keeps_code_and_hint() -> None:
    problem = InvalidRequest.of("key", "no such key", code="bad_key", hint="another").problem()
    assert [(each.field, each.message) for each in problem.errors] == [("key", "no such key")]
    assert (problem.status, problem.code, problem.hint) == (422, "bad_key", "another")
    assert InvalidRequest.of("key", "x").code == "invalid_request"
