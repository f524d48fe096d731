"""Every operation of the OpenAPI document, for every role, about one's own things, those of another
team and those of another organisation: what happens is what ``matrix.txt`` says.

After a change that is meant, write the table anew and read the difference:

    ST_WRITE_MATRIX=1 .venv/bin/python -m pytest tests/authorization -q
"""

import os
from pathlib import Path

from matrix_world import BODIES, PLACES, ROLES, MatrixWorld

from st_controller.api.dependencies import asked_permissions, declared_access
from st_controller.domain.policy.permissions import PERMISSIONS

TABLE = Path(__file__).parent / "matrix.txt"
OF_NOBODY = {"public", "url", "join", "worker", "metrics", "session"}
"""Access that no role decides: tested where it belongs (test_access, test_sessions, ...)."""
OF_NO_OTHERS = {
    "/v1/auth/me", "/v1/auth/logout", "/v1/jobs:batch", "/v1/jobs:check", "/v1/queue/policy",
    "/v1/secrets/{name}", "/v1/shared-secrets/{name}", "/v1/orgs",
}  # fmt: skip
"""Paths that lead to nobody else's things: what they make, or name, is the caller's own."""
MADE = {"/v1/api-keys", "/v1/jobs", "/v1/job-arrays", "/v1/datasets", "/v1/configs"}
"""Lists to which a POST adds something of the caller's own."""
SHARED = ("/v1/workers", "/v1/join-tokens", "/v1/roles", "/v1/prices")
"""What all organisations share."""


def operations(app) -> list[tuple[str, str, str]]:
    """Method, path and access of each operation in the document that a role decides about."""
    declared = {
        (method, path.replace(":path}", "}")): access
        for method, path, (access,) in declared_access(app)
    }
    found = []
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            access = declared[method.upper(), path]
            if access not in OF_NOBODY:
                found.append((method.upper(), path, access))
    return sorted(found, key=lambda each: (each[1], each[0]))


def cells(world: MatrixWorld, method: str, path: str) -> list[str]:
    """For each role three letters: own, another team's, another organisation's; or one."""
    if is_one(method, path):
        return [world.answer(method, path, role, "own") for role in ROLES]
    if method == "GET" and "{" not in path:
        return [world.listed(path, role) for role in ROLES]
    return ["".join(world.answer(method, path, role, place) for place in PLACES) for role in ROLES]


def written(rows: dict[tuple[str, str], list[str]]) -> str:
    """The table as text."""
    lines = [
        "# Written by tests/authorization/test_matrix.py; read its head before you change this.",
        "# Three letters a role: about one's own things, another team's, another organisation's.",
        "# One letter: there are no things of others that it could be about.",
        "# y permitted   n refused (403)   0 does not exist (404)",
        "# Of lists: y its things are in the answer   - they are not",
        "# director: a role made here with the reach org; viewer: with the permission api.access.",
        f"{'':<58}" + "".join(f"{role:<12}" for role in ROLES).rstrip(),
    ]
    for (method, path), row in rows.items():
        lines.append(f"{method:<7}{path:<51}" + "".join(f"{cell:<12}" for cell in row).rstrip())
    return "\n".join(lines) + "\n"


def test_every_role_may_what_the_table_says(world):
    app = world.client.app
    asked = operations(app)
    rows = {(method, path): cells(world, method, path) for method, path, _ in asked}
    unexplained = [(key, row) for key, row in rows.items() if set("".join(row)) & set("?u")]
    assert unexplained == []
    held = {
        role: set(world.client.get("/v1/auth/me", headers=world.keys[role]).json()["permissions"])
        for role in ROLES
    }
    for method, path, access in asked:
        needed = set(access.split(" or ")) & PERMISSIONS.keys()
        for role, cell in zip(ROLES, rows[method, path], strict=True):
            where = f"{method} {path} {role} {cell}"
            if needed and not needed & held[role]:
                assert set(cell) == {"n"}, where
            if role != "admin":
                assert not cell.endswith("y") or is_one(method, path), f"leak: {where}"
    text = written(rows)
    if os.environ.get("ST_WRITE_MATRIX"):
        TABLE.write_text(text)
    assert text == TABLE.read_text(), "what roles may has changed: see the head of this file"


def is_one(method: str, path: str) -> bool:
    """Whether it makes no difference about whose things it is asked."""
    if path in OF_NO_OTHERS or (method == "POST" and path in MADE):
        return method != "GET" or path != "/v1/orgs"
    return path.startswith(SHARED)


def test_every_permission_is_asked_for_by_some_route(app_client):
    asked = set().union(*(asks for _, _, asks in asked_permissions(app_client.app)))
    # Who may not use keys at all is refused before any route: see test_api_keys.
    assert PERMISSIONS.keys() - asked == {"api.access"}


def test_bodies_are_those_of_operations(app_client):
    paths = app_client.app.openapi()["paths"]
    assert [key for key in BODIES if key[0].lower() not in paths.get(key[1], {})] == []
