"""A key's scopes are looked at on every route: taking one away closes what it opened."""

import re

import pytest

from st_controller.api.dependencies import declared_access
from st_controller.domain.policy.permissions import PERMISSIONS

FOR_ANY_KEY = {
    ("GET", "/v1/auth/me"): "says what the key may do",
    ("POST", "/v1/auth/logout"): "does nothing with a key",
}
"""What a key may do whatever its scopes are, and why that is no harm."""


@pytest.fixture
def routes(app_client):
    """Every route with its one declaration."""
    return [
        (method, path, declared) for method, path, (declared,) in declared_access(app_client.app)
    ]


@pytest.fixture
def headers_without(new_key):
    """Headers of a key of the admin that has every scope but those of a declaration."""
    made: dict[str, dict[str, str]] = {}

    def headers(declared):
        if declared not in made:
            key = new_key(scopes=sorted(PERMISSIONS.keys() - permissions(declared))).json()["key"]
            made[declared] = {"Authorization": f"Bearer {key}"}
        return made[declared]

    return headers


def permissions(declared: str) -> set[str]:
    """The permissions of which a route asks for one; none: it asks for something else."""
    return set(declared.split(" or ")) & PERMISSIONS.keys()


def filled(path: str) -> str:
    return re.sub(r"{[^}]+}", "x", path)


def test_a_key_without_the_scope_is_refused_by_every_route_that_needs_it(
    app_client, routes, headers_without
):
    needing = [route for route in routes if permissions(route[2])]
    assert len(needing) > 60
    opened = []
    for method, path, permission in needing:
        reply = app_client.request(method, filled(path), headers=headers_without(permission))
        if (reply.status_code, reply.json()["code"]) != (403, "not_permitted"):
            opened.append((method, path, permission, reply.status_code))
    assert opened == []


def test_no_key_at_all_does_what_a_browser_alone_may(app_client, routes, admin_headers):
    browsers = [route for route in routes if route[2] == "session"]
    assert len(browsers) >= 7
    for method, path, _ in browsers:
        reply = app_client.request(method, filled(path), headers=admin_headers)
        assert (reply.status_code, reply.json()["code"]) == (403, "needs_session"), path


def test_what_any_key_may_do_is_a_decision(routes):
    found = {(method, path) for method, path, declared in routes if declared == "signed in"}
    assert found == FOR_ANY_KEY.keys()


def test_a_key_without_any_scope_is_told_who_it_is_and_nothing_else(app_client, new_key, routes):
    headers = {"Authorization": f"Bearer {new_key(scopes=[]).json()['key']}"}
    me = app_client.get("/v1/auth/me", headers=headers).json()
    assert me["permissions"] == []
    for method, path, declared in routes:
        if permissions(declared):
            assert app_client.request(method, filled(path), headers=headers).status_code == 403, (
                path
            )


def test_no_page_of_another_site_makes_a_browser_change_anything(browser, routes):
    """CSRF: whatever a cookie opens, a request that says it comes from elsewhere is refused."""
    writing = [
        (method, path)
        for method, path, declared in routes
        if method not in {"GET", "HEAD"} and (permissions(declared) or declared == "session")
    ]
    writing += [("POST", f"/v1/auth/{name}") for name in ("login", "setup", "reset", "logout")]
    assert len(writing) > 50
    bodies = {
        "/v1/auth/login": {"username": "root", "password": "x"},
        "/v1/auth/setup": {"token": "t", "username": "root", "password": "correct horse"},
        "/v1/auth/reset": {"token": "t", "new": "correct horse"},
    }
    for method, path in writing:
        for said in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            reply = browser.request(method, filled(path), headers=said, json=bodies.get(path))
            assert (reply.status_code, reply.json()["code"]) == (403, "cross_site"), path
