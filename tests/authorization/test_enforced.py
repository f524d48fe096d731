"""Every permission makes a difference: with it something is answered that is not without it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
from matrix_world import PLACES, TRAINING, MatrixWorld

from st_controller.api.dependencies import asked_permissions
from st_controller.auth import secrets
from st_controller.domain.policy.permissions import PERMISSIONS

JOB = {"name": "n", "noop": {}}
WANTED = {
    "job.priority.high": {**JOB, "priority": "high"},
    "job.priority.urgent": {**JOB, "priority": "urgent"},
    "job.command": {"name": "n", "command": {"run": "true"}},
    "job.bypass.quota": {**JOB, "bypass_quota": True},
    "job.bypass.approval": {"name": "n", "training": TRAINING},
    "config.view": {**JOB, "config": "config-admin-self"},
}
"""Permissions that decide what a job file may say."""
OTHER_WAYS = {
    "config.delete.own": {"config.delete.all"},
    "config.edit.own": {"config.edit.all"},
    "job.bypass.queue": {"queue.manage"},
    "job.cancel.own": {"job.cancel.all", "queue.cancel.own", "queue.cancel.all"},
    "job.cancel.all": {"queue.cancel.all"},
    "job.delete.own": {"job.delete.all"},
    "queue.cancel.own": {"job.cancel.own", "job.cancel.all", "queue.cancel.all"},
    "queue.cancel.all": {"job.cancel.all"},
}
"""Permissions that open the same, and are taken away first."""
ELSEWHERE = {
    "api.access": "test_api_keys: refused before any route",
}


@pytest.fixture
def world(app_client, admin_headers):
    settings = app_client.app.state.platform.settings
    object.__setattr__(settings, "allow_command_jobs", True)
    return MatrixWorld(app_client, admin_headers)


def questions(world: MatrixWorld, permission: str) -> Iterator[Callable[[], str]]:
    """What an admin may ask where this permission is said to matter."""
    if permission in WANTED:
        yield lambda: submitted(world, WANTED[permission])
        return
    for method, path, asks in asked_permissions(world.client.app):
        if permission not in asks or path.endswith("/events"):
            continue
        shown = path.replace(":path}", "}")
        if permission == "job.bypass.queue":
            yield lambda: put_first(world)
        elif method == "GET" and "{" not in path:
            yield lambda shown=shown: world.listed(shown, "admin")
        else:
            for place in PLACES:
                yield partial(world.answer, method, shown, "admin", place)


def submitted(world: MatrixWorld, job: dict) -> str:
    reply = world.send("POST", "/v1/jobs", "admin", job)
    return f"{reply.status_code} {reply.json().get('state')}"


def put_first(world: MatrixWorld) -> str:
    place = world.things["admin-self"].values["job_id"]
    reply = world.send("POST", f"/v1/jobs/{place}/priority", "admin", {"override": 50})
    return str(reply.status_code)


def test_every_permission_makes_a_difference(world):
    platform = world.client.app.state.platform
    world.send("GET", "/v1/auth/me", "admin")
    digest = secrets.digest(world.keys["admin"]["Authorization"].removeprefix("Bearer "))
    caller, at = platform.callers._known[digest]
    assert caller.permissions == PERMISSIONS.keys()
    everything = caller.permissions

    def told(question, held) -> str:
        platform.callers._known[digest] = (replace(caller, permissions=held), at)
        return question()

    idle = []
    for permission in sorted(PERMISSIONS.keys() - ELSEWHERE.keys()):
        base = everything - OTHER_WAYS.get(permission, set())
        asked = questions(world, permission)
        if all(told(each, base) == told(each, base - {permission}) for each in asked):
            idle.append(permission)
    assert idle == []
