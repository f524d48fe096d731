import pytest
from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from st_controller.api.dependencies import public
from st_shared.protocol.problems import Problem


def problem(reply):
    assert reply.headers["content-type"] == "application/problem+json"
    told = Problem.model_validate(reply.json())
    assert told.status == reply.status_code
    return told


JSON = "application/json"


class Body(BaseModel):
    steps: int
    name: str


@pytest.fixture
def client(app_client):
    router = APIRouter(dependencies=[public()])

    @router.get("/fails")
    def fails() -> None:
        raise RuntimeError("the password is hunter2")

    @router.get("/waits")
    def waits() -> None:
        raise OperationalError("SELECT 'hunter2'", None, Exception("canceling: lock timeout"))

    @router.post("/takes")
    def takes(body: Body) -> None: ...

    app_client.app.include_router(router)
    return app_client


def test_no_route(client):
    nowhere = problem(client.get("/v1/nothing"))
    assert nowhere.code == "no_such_route"
    assert nowhere.detail == "there is nothing at /v1/nothing of this controller"


def test_wrong_method(client):
    reply = client.put("/healthz")
    assert problem(reply).code == "method_not_allowed"
    assert reply.headers["allow"] == "GET"


def test_wrong_fields_are_named_and_their_values_are_not_repeated(client):
    reply = client.post("/takes", json={"steps": "hunter2"})
    told = problem(reply)
    assert (told.status, told.code) == (422, "invalid_request")
    assert {error.field for error in told.errors} == {"steps", "name"}
    assert "hunter2" not in reply.text


def test_broken_json_is_told(client):
    reply = client.post("/takes", content=b"{", headers={"Content-Type": JSON})
    told = problem(reply)
    assert (told.status, told.errors[0].field) == (422, "body")
    assert told.errors[0].message.startswith("no JSON at character 1: expecting property name")


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (b'{"steps": ' + b"9" * 5000 + b"}", "steps", "5000 digits"),
        (b'{"a": [{"b": 1}, {"b": -' + b"1" * 4301 + b"}]}", "a.1.b", "4301 digits"),
        (b"1" * 5000, "body", "5000 digits"),
        (b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body", "nested too deeply"),
        (b'{"name": "\xff"}', "body", "no text in UTF-8"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "body",
)
def test_json_that_cannot_be_read_is_told(client, body, field, said):
    told = problem(client.post("/takes", content=body, headers={"Content-Type": JSON}))
    assert (told.status, told.code) == (422, "invalid_request")
    assert [error.field for error in told.errors] == [field]
    assert said in told.errors[0].message
    assert len(told.model_dump_json()) < 1000


def test_a_defect_of_ours_leaks_nothing_and_can_be_found_in_the_log(client):
    with capture_logs() as logs:
        reply = client.get("/fails")
    told = problem(reply)
    assert (told.status, told.code) == (500, "internal_error")
    assert "hunter2" not in reply.text
    assert reply.headers["x-request-id"] in told.detail
    assert "request failed" in [entry["event"] for entry in logs]


def test_a_database_that_gives_up_is_told_as_something_that_passes(client):
    with capture_logs() as logs:
        reply = client.get("/waits")
    told = problem(reply)
    assert (told.status, told.code, reply.headers["retry-after"]) == (503, "unavailable", "1")
    assert "hunter2" not in reply.text
    assert "the database gave up" in [entry["event"] for entry in logs]


@pytest.mark.parametrize("path", ["/healthz", "/v1/nothing", "/v1/auth/me", "/fails"])
def test_every_answer_carries_the_protective_headers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["x-request-id"].startswith("req_")


def test_a_large_body_is_refused_before_it_is_read(client, settings):
    reply = client.post("/takes", content=b"x" * (settings.max_body_bytes + 1))
    assert problem(reply).code == "body_too_large"


def test_a_large_body_of_unknown_length_is_refused_when_it_has_grown_too_large(client, settings):
    came = []

    def pieces():
        for _ in range(4 * settings.max_body_bytes // 2**20):
            came.append(1)
            yield b"x" * 2**20

    reply = client.post("/takes", content=pieces())
    assert problem(reply).code == "body_too_large"
