"""Deny by default: every route declares who may call it, and means it."""

import pytest
from fastapi import APIRouter

from st_controller.api.dependencies import declared_access, requires
from st_controller.app import create_app
from st_controller.domain.policy.permissions import PERMISSIONS

WORDS = {"public", "signed in", "session", "worker", "join", "url", "metrics"}
PUBLIC = {
    "/",
    "/login",
    "/approvals",
    "/account",
    "/reset",
    "/arrays",
    "/arrays/{array_id}",
    "/people",
    "/queue",
    "/quotas",
    "/workers",
    "/jobs/{job_id}",
    "/static/{name}",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/v1/auth/setup",
    "/v1/auth/login",
    "/v1/auth/reset",
    "/v1/probe/stream",
}


@pytest.fixture
def app(settings):
    made = create_app(settings, dispatch=False)
    yield made
    made.state.platform.db.close()


def test_every_route_declares_exactly_one_access(app):
    routes = list(declared_access(app))
    assert len(routes) > 30
    wrong = [route for route in routes if len(route[2]) != 1]
    assert wrong == []
    words = {word for route in routes for word in route[2][0].split(" or ")}
    assert words <= WORDS | PERMISSIONS.keys()


def test_what_is_public_is_a_decision(app):
    assert {path for _, path, declared in declared_access(app) if "public" in declared} == PUBLIC


def test_a_route_that_forgets_is_found(app):
    careless = APIRouter()

    @careless.get("/v1/careless")
    def forgets() -> None: ...

    app.include_router(careless)
    assert ("GET", "/v1/careless", []) in list(declared_access(app))


def test_an_unknown_permission_cannot_be_declared():
    with pytest.raises(ValueError, match=r"job\.fly"):
        requires("job.fly")


def test_nothing_that_is_not_public_answers_a_stranger(app_client):
    for method, path, (declared,) in declared_access(app_client.app):
        if declared == "public":
            continue
        filled = path.replace("{key:path}", "x")
        for name in ("key_id", "token_id", "job_id", "worker_id", "attempt_id", "name"):
            filled = filled.replace(f"{{{name}}}", "x")
        status = app_client.request(method, filled).status_code
        assert status in {401, 403}, f"{method} {path} ({declared}) answered {status}"
