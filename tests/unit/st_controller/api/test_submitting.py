"""Submitting and steering over HTTP: statuses, fields of problems, warnings, filters."""

import asyncio
import json
from threading import Event

import pytest

from st_controller.app import create_app
from st_controller.dispatch.rounds import Rounds

NOOP = {"name": "job", "noop": {"seconds": 0}}
TRACKED = {
    "model": {"family": "pixel_dit"},
    "datasets": [{"path": "p"}],
    "steps": 1,
    "trackers": [{"kind": "custom", "module": "m", "options": {"deep": [1, float("nan")]}}],
}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def post(app_client, admin_headers):
    """Posts as the admin; a body of text goes out as it stands."""

    def send(path, body=None, headers=admin_headers, **more):
        content = body if isinstance(body, str) else json.dumps(body)
        return app_client.post(f"/v1/{path}", content=content, headers={**headers, **JSON, **more})

    return send


@pytest.fixture
def get(app_client, admin_headers):
    return lambda path: app_client.get(f"/v1/{path}", headers=admin_headers).json()


@pytest.fixture
def join(app_client, admin_headers):
    """Lets a worker join, or come back with its credential; gives the answer."""

    def register(credential=None, **slot):
        token = credential
        if token is None:
            made = app_client.post("/v1/join-tokens", json={}, headers=admin_headers)
            token = made.json()["token"]
        place = {"index": 0, "accelerator": "cpu", "memory_gb": 8, **slot}
        inventory = {
            "hostname": "h", "slots": [place], "cpus": 1, "memory_gb": 8, "disk_free_gb": 1,
            "platform": "linux",
        }  # fmt: skip
        body = {"name": "w", "agent_version": "1", "inventory": inventory}
        headers = {"Authorization": f"Bearer {token}"}
        return app_client.post("/v1/worker/register", json=body, headers=headers)

    return register


def fields(reply):
    return [error["field"] for error in reply.json()["errors"]]


def test_a_submission_is_answered_201_and_its_repeat_200(post):
    key = {"Idempotency-Key": "k"}
    first, again = post("jobs", NOOP, **key), post("jobs", NOOP, **key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    same = {"id", "name", "state", "kind", "priority", "submitted_by", "submitted_at", "version"}
    assert {key: first.json()[key] for key in same} == {key: again.json()[key] for key in same}
    other = post("jobs", {**NOOP, "name": "other"}, **key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")


def test_the_answer_is_what_the_job_is_shown_as(post, get):
    later = {**NOOP, "not_before": "2099-12-31T23:59:59.25+05:30"}
    told = post("jobs", later).json()
    assert told["not_before"] == "2099-12-31T18:29:59.250000Z"
    shown = get(f"jobs/{told['id']}")
    for changing in ("reason", "warnings"):  # why it waits is asked later
        told.pop(changing)
        shown.pop(changing)
    shown.pop("spec")
    assert told == shown


def test_every_job_is_shown_with_its_own_class(post, get):
    classes = ["low", "normal", "high", "urgent", "critical"]
    for priority in classes:
        assert post("jobs", {**NOOP, "priority": priority}).json()["priority"] == priority
    assert sorted(job["priority"] for job in get("jobs")["items"]) == sorted(classes)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ('{"name": "n", "noop": {"seconds": NaN}}', 422, "noop.seconds"),
        ('{"name": "n", "noop": {"seconds": -Infinity}}', 422, "noop.seconds"),
        ('{"name": "n", "noop": {"seconds": 1e999}}', 422, "noop.seconds"),
        ('{"name": "n", "noop": {"seconds": -1}}', 422, "noop.seconds"),
        ('{"name": "n", "noop": {}, "nope": 1}', 422, "nope"),
        ('{"name": "n", "noop": {}, "resources": {"slots": 1e30}}', 422, "resources.slots"),
        ('{"name": "n", "noop": {}, "time_limit": "1000d"}', 422, "time_limit"),
        ('{"name": "n", "noop": {}, "not_before": "2026-01-01"}', 422, "not_before"),
        ('{"name": "n", "noop": {}, "not_before": 1e300}', 422, "not_before"),
        (  # UTC has no such year
            '{"name": "n", "noop": {}, "not_before": "9999-12-31T23:59:59-12:00"}',
            422,
            "not_before",
        ),
        (
            '{"name": "n", "noop": {}, "not_before": "0001-01-01T00:00:00+12:00"}',
            422,
            "not_before",
        ),
        (
            '{"name": "n", "noop": {}, "resources": {"slots": ' + "9" * 5000 + "}}",
            422,
            "resources.slots",
        ),
        ('{"name": "n", "noop": {}, "after": ["x", "x"]}', 422, "after.1"),
        ('{"name": "n"}', 422, "training"),
        ('{"name": "n", "noop": {}, "command": {"run": "true"}}', 422, "noop"),
        (
            json.dumps({"name": "n", "training": TRACKED}),  # writes NaN as it reads it
            422,
            "training.trackers.0.options.deep.1",
        ),
        ("[1]", 422, "body"),
        ('{"name": "n", "command": {"run": "true"}}', 403, "command"),
        ('{"name": "' + "n" * 2**20 + '", "noop": {}}', 422, "name"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(post, get, body, status, field):
    reply = post("jobs", body, **{"Idempotency-Key": "k"})
    assert (reply.status_code, fields(reply)) == (status, [field])
    assert reply.headers["content-type"] == "application/problem+json"
    assert get("jobs")["items"] == []
    assert post("jobs", NOOP, **{"Idempotency-Key": "k"}).status_code == 201


@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_document_of_great_depth_is_refused(post, depth):
    body = '{"name": "n", "noop": ' + "[" * depth + "]" * depth + "}"
    reply = post("jobs", body)
    assert (reply.status_code, fields(reply)) == (422, ["noop" if depth < 1000 else "body"])


def test_a_repeat_succeeds_although_its_dataset_is_gone(post, platform_db):
    from sqlalchemy import text

    with platform_db.write() as tx:
        tx.session.execute(
            text(
                "INSERT INTO datasets (id, org, name, digest, samples, room, archives, created_by,"
                " created_at, stored_at, current) SELECT 'ds_1', org, 'd', 'x', 1, 0, '[]', id,"
                " created_at, created_at, 1 FROM users"
            )
        )
    training = {"model": {"family": "pixel_dit"}, "datasets": [{"name": "d"}], "steps": 1}
    body, key = {"name": "n", "training": training}, {"Idempotency-Key": "k"}
    first = post("jobs", body, **key)
    assert first.status_code == 201
    with platform_db.write() as tx:
        tx.session.execute(text("DELETE FROM datasets"))
    again = post("jobs", body, **key)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert post("jobs", body).status_code == 422


def test_a_batch_is_answered_with_ids_in_its_order(post, get):
    jobs = [{**NOOP, "name": f"n{number}"} for number in range(3)]
    key = {"Idempotency-Key": "k"}
    first, again = (post("jobs:batch", {"jobs": jobs}, **key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    told = first.json()["jobs"]
    assert [job["name"] for job in told] == ["n0", "n1", "n2"]
    assert [job["id"] for job in again.json()["jobs"]] == [job["id"] for job in told]
    assert get(f"jobs/{told[1]['id']}")["name"] == "n1"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["jobs"]),
        ({"jobs": []}, ["jobs"]),
        ({"jobs": [NOOP] * 1001}, ["jobs"]),
        ({"jobs": [NOOP], "nope": 1}, ["nope"]),
        ({"jobs": [NOOP, 7]}, ["jobs.1"]),
        ({"jobs": [NOOP, {**NOOP, "noop": {"seconds": "x"}}]}, ["jobs.1.noop.seconds"]),
    ],
)
def test_a_bad_batch_is_named_and_leaves_nothing(post, get, body, named):
    reply = post("jobs:batch", body)
    assert (reply.status_code, fields(reply)) == (422, named)
    assert get("jobs")["items"] == []


def test_hopeless_requests_are_warned_of_and_others_are_not(post, join, clock):
    told = post("jobs", NOOP).json()["warnings"]
    assert [(why["code"], "st-worker join" in why["hint"]) for why in told] == [
        ("unsatisfiable", True)
    ]
    assert join().status_code == 200
    clock.advance(2)
    assert post("jobs", NOOP).json()["warnings"] == []
    wanted = {**NOOP, "resources": {"accelerator": "h100*"}}
    (warning,) = post("jobs", wanted).json()["warnings"]
    assert "there are: cpu" in warning["message"]
    batch = post("jobs:batch", {"jobs": [NOOP, {**wanted, "name": "w"}]}).json()["jobs"]
    assert [len(job["warnings"]) for job in batch] == [0, 1]
    sweep = {"spec": wanted, "grid": {"noop.seconds": [1, 2, 3]}}
    assert len(post("job-arrays", sweep).json()["warnings"]) == 1


def test_a_repeated_request_that_is_hopeless_is_warned_of_again(post):
    sweep = {"spec": NOOP, "grid": {"noop.seconds": [1, 2]}}
    for path, body in (("jobs", NOOP), ("job-arrays", sweep), ("jobs:batch", {"jobs": [NOOP]})):
        key = {"Idempotency-Key": path}
        first, again = post(path, body, **key), post(path, body, **key)
        assert (first.status_code, again.status_code) == (201, 200)
        told = [reply.json().get("jobs", [reply.json()])[0] for reply in (first, again)]
        assert told[0]["warnings"] == told[1]["warnings"] != []


def test_workers_that_drain_or_are_silent_may_come_back(
    post, join, app_client, admin_headers, clock
):
    worker_id = join(accelerator="h100").json()["worker_id"]
    wanted = {**NOOP, "resources": {"accelerator": "h100"}}
    post(f"workers/{worker_id}/drain")
    assert post("jobs", wanted).json()["warnings"] == []
    post(f"workers/{worker_id}/retire")
    assert len(post("jobs", wanted).json()["warnings"]) == 1


@pytest.mark.parametrize("how", ["leaves", "falls silent", "has less"])
def test_once_the_last_fitting_worker_went_the_next_request_is_warned_of(
    post, join, app_client, clock, how
):
    joined = join(accelerator="h100").json()
    as_worker = {"headers": {"Authorization": f"Bearer {joined['credential']}"}}
    assert app_client.post("/v1/worker/heartbeat", json={}, **as_worker).status_code == 200
    wanted = {**NOOP, "resources": {"accelerator": "h100"}}
    assert post("jobs", wanted).json()["warnings"] == []
    if how == "leaves":
        app_client.post("/v1/worker/heartbeat", json={"leaving": True}, **as_worker)
    elif how == "falls silent":
        clock.advance(40)
        platform = app_client.app.state.platform
        rounds = Rounds(platform.db, platform.patience)
        rounds.sweep(rounds.seek("ctl_test", alone=True))
    else:
        join(accelerator="l4", credential=joined["credential"])
    assert len(post("jobs", wanted).json()["warnings"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "priority"),
        ({"priority": "high", "override": 10}, 422, "override"),
        ({"priority": None}, 422, "priority"),
        ({"priority": "huge"}, 422, "priority"),
        ({"override": 15}, 422, "override"),
        ({"override": 60}, 422, "override"),
        ({"override": -10}, 422, "override"),
        ({"override": 10, "more": 1}, 422, "more"),
        ({"override": None}, 200, None),
        ({"override": 50}, 200, None),
        ({"priority": "critical"}, 200, None),
    ],
)
def test_a_change_of_priority_says_one_thing(post, get, body, status, field):
    job_id = post("jobs", NOOP).json()["id"]
    reply = post(f"jobs/{job_id}/priority", body)
    assert reply.status_code == status
    if field:
        assert fields(reply) == [field]
    if status == 200:
        shown = get(f"jobs/{job_id}")
        assert shown["override"] == body.get("override")
        assert shown["priority"] == body.get("priority", "normal")


def test_a_key_that_may_only_cancel_neither_retries_nor_steers(post, new_key):
    job_id = post("jobs", NOOP).json()["id"]
    post(f"jobs/{job_id}/cancel")
    key = new_key(scopes=["job.cancel.own", "job.view.own"]).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert post(f"jobs/{job_id}/retry", headers=headers).status_code == 403
    assert post(f"jobs/{job_id}/priority", {"priority": "low"}, headers=headers).status_code == 403
    assert post(f"jobs/{job_id}/retry").json()["state"] == "queued"
    assert post(f"jobs/{job_id}/retry").json()["code"] == "not_retryable"


def test_an_array_has_a_page_of_its_own(post, get, app_client, admin_headers):
    body = {"spec": NOOP, "grid": {"noop.seconds": [1, 2, 3]}, "max_running": 2}
    key = {"Idempotency-Key": "k"}
    made, again = post("job-arrays", body, **key), post("job-arrays", body, **key)
    assert (made.status_code, again.status_code) == (201, 200)
    array = made.json()
    address = f"job-arrays/{array['id']}"
    assert made.headers["location"] == f"/v1/{address}"
    assert (array["size"], array["counts"], array["max_running"]) == (3, {"queued": 3}, 2)
    assert again.json()["id"] == array["id"]
    listed = get(f"jobs?array={array['id']}&priority=normal&mine=true")["items"]
    assert [(job["name"], job["array_index"]) for job in listed] == [
        ("job-002", 2), ("job-001", 1), ("job-000", 0),
    ]  # fmt: skip
    assert [item["id"] for item in get("job-arrays")["items"]] == [array["id"]]
    change = app_client.patch(f"/v1/{address}", json={"max_running": None}, headers=admin_headers)
    assert change.json()["max_running"] is None
    for wrong in ({}, {"max_running": 0}, {"max_running": 2**40}, {"max_running": "x"}):
        reply = app_client.patch(f"/v1/{address}", json=wrong, headers=admin_headers)
        assert (reply.status_code, fields(reply)) == (422, ["max_running"])
    assert post(f"{address}/cancel").json()["counts"] == {"cancelled": 3}
    assert get("job-arrays/arr_none")["code"] == "not_found"
    assert get("job-arrays/%00")["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spec": 7}, "spec"),
        ({"grid": [1]}, "grid"),
        ({"grid": {"a" * 201: [1]}}, "grid"),
        ({"max_running": 0}, "max_running"),
        ({"name": "\0"}, "name"),
        ({"nope": 1}, "nope"),
    ],
)
def test_a_bad_array_is_named(post, change, named):
    reply = post("job-arrays", {"spec": NOOP, "grid": {"noop.seconds": [1]}, **change})
    assert reply.status_code == 422
    assert fields(reply)[0].startswith(named)


def test_commands_are_taken_where_they_are_allowed(settings, clock):
    from fastapi.testclient import TestClient

    allowed = settings.model_copy(update={"allow_command_jobs": True})
    app = create_app(allowed, clock=clock, dispatch=False)
    with TestClient(app) as client:
        body = {"token": app.state.setup_token, "username": "root", "password": "a long password"}
        key = client.post("/v1/auth/setup", json=body).json()["key"]
        headers = {"Authorization": f"Bearer {key}"}
        body = {"name": "c", "command": {"run": "true"}}
        reply = client.post("/v1/jobs", json=body, headers=headers)
    assert (reply.status_code, reply.json()["kind"]) == (201, "command")


@pytest.fixture
def one_thread(monkeypatch):
    """The scheduler and the streams have one thread between them."""
    monkeypatch.setattr("st_controller.app._THREADS", 1)


def test_a_job_that_waits_for_others_takes_no_thread_of_the_scheduler(
    one_thread, app_client, admin_headers, post, clock
):
    parent = post("jobs", NOOP).json()["id"]
    body = {**NOOP, "after": [parent], "resources": {"labels": {"room": "9" * 64}}}
    clock.advance(3600)  # nothing is remembered, of the caller neither
    release, given_back = Event(), []
    app_client.portal.start_task_soon(
        asyncio.to_thread, lambda: given_back.append(release.wait(120))
    )
    try:
        assert post("jobs", body, **{"Idempotency-Key": "k"}).status_code == 201
        assert post("jobs", body, **{"Idempotency-Key": "k"}).status_code == 200
        assert given_back == []
    finally:
        release.set()
