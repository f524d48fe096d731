"""Every operation is what the OpenAPI document says, whatever is sent: schemathesis makes requests
from the document, sound ones and unsound ones, and looks at what a viewer, a researcher and an
admin are answered: nothing of 500 or more, and nothing that the document does not describe.

With many more requests, as ``make test-nightly`` does it: ``ST_API_EXAMPLES=100``.
"""

import os
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from matrix_world import MatrixWorld
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.schemas import APIOperation

ROLES = ("viewer", "researcher", "admin")
EXAMPLES = int(os.environ.get("ST_API_EXAMPLES", "3"))
"""Sound requests of each operation, and as many unsound ones; each role makes a third of them."""
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
STREAMS = {"/v1/worker/stream", "/v1/probe/stream"}
"""Answers without an end; what they bring is tested elsewhere."""
NOTHING_UNSOUND = {"/healthz", "/readyz", "/metrics", "/v1/objects/{key}"}
"""Paths that take nothing, or any text."""
SOUND, UNSOUND = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def ask(data, operation: APIOperation, mode: GenerationMode, tell: Callable[[Case], None]) -> None:
    tell(data.draw(operation.as_strategy(generation_mode=mode)))


@pytest.mark.timeout(3600 if EXAMPLES > 10 else 300)
def test_answers_are_those_of_the_document(world):
    load_all_checks()
    checks = CHECKS.get_by_names(CHECKED)
    wrong: dict[tuple[str, str], str] = {}
    accepted = set()
    for found in openapi.from_dict(world.client.app.openapi()).get_all_operations():
        operation = found.ok()
        for mode in (SOUND, UNSOUND):
            number = count()

            def tell(case: Case, mode=mode, number=number) -> None:
                turn, which = divmod(next(number), len(ROLES))
                reply = sent(
                    world, case, ROLES[which], to_things=(turn % 2 == 0) is (mode is SOUND)
                )
                if reply.is_success:
                    accepted.add(case.operation.label)
                try:
                    case.validate_response(reply, checks=checks)
                except FailureGroup as group:
                    for each in group.exceptions:
                        wrong.setdefault((case.operation.label, str(each)), str(group))

            if operation.path not in STREAMS and (
                mode is SOUND or operation.path not in NOTHING_UNSOUND
            ):
                ask(operation=operation, mode=mode, tell=tell)
    assert not wrong, "\n\n".join(wrong.values())
    assert len(accepted) > 60, "too few of these requests do anything"


def sent(world: MatrixWorld, case: Case, role: str, *, to_things: bool):
    """The answer to a request of a role; ``to_things``: with what they have in its path."""
    if to_things and case.path_parameters:
        path, things = case.operation.path, world.things[f"{role}-self"]
        case = case.derive()
        case.path_parameters = {
            name: world.value(path, name, things) for name in case.path_parameters
        }
    asked = requests.Request(**case.as_transport_kwargs(base_url="http://testserver")).prepare()
    body = asked.body.encode() if isinstance(asked.body, str) else asked.body
    headers = {**asked.headers, **world.keys[role]}
    client = world.client
    return type(client).request(client, asked.method, asked.url, content=body, headers=headers)


def test_the_command_is_still_ours():
    # schemathesis brings a command of the same name: whoever is installed last has it.
    assert "st_client.cli" in Path(sys.executable).with_name("st").read_text()
