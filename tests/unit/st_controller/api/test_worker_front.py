"""Calls of workers are answered in front of the framework, as their routes would answer."""

import asyncio
import gzip

import pytest
from controller_steps import registration
from sqlalchemy import select

from st_controller.api import dependencies, worker_front
from st_controller.api import worker as worker_api
from st_controller.dispatch.rounds import Rounds
from st_controller.services.live_queue import LiveQueue
from st_controller.store.schema import Attempt
from st_shared.protocol.states import AttemptState

BEAT = "/v1/worker/heartbeat"
JSON = {"Content-Type": "application/json"}
LONG = {"Content-Encoding": "identity"}
"""Whatever has such a header goes the long way, and means the same."""


@pytest.fixture
def credential(app_client, admin_headers):
    token = app_client.post("/v1/join-tokens", json={}, headers=admin_headers).json()["token"]
    body = registration(slots=2).model_dump(mode="json")
    headers = {"Authorization": f"Bearer {token}"}
    return app_client.post("/v1/worker/register", json=body, headers=headers).json()


@pytest.fixture
def beat(app_client, credential):
    """Beats: ``beat(content, **headers)``."""
    shown = {"Authorization": f"Bearer {credential['credential']}"} | JSON

    def send(content=b"{}", **headers):
        return app_client.post(BEAT, content=content, headers=shown | headers)

    assert send().status_code == 200  # from now on it is known
    return send


@pytest.fixture
def no_route(monkeypatch):
    """The route of heartbeats cannot answer."""

    def fails(*_):
        raise AssertionError("the long way was taken")

    monkeypatch.setattr(worker_api, "encoded", fails)


def told(reply):
    headers = {name: value for name, value in reply.headers.items() if name != "x-request-id"}
    return reply.status_code, headers, reply.content


BODIES = [
    b"{}",
    b'{"usage": {"slots": [{"index": 0, "utilisation": 3.5}], "disk_free_gb": 1}}',
    b'{"holding": [{"attempt_id": "att_01k9zzzzzzzzzzzzzzzzzzzzzz", "epoch": 1}]}',
    b'{"deaf": true}',
    b'{"leaving": true}',
    b"",
    b"{nonsense",
    b"[]",
    b'{"unknown": 1}',
    b'{"usage": {"disk_free_gb": NaN}}',
    b'{"cached_models": ["a\\u0000b"]}',
]


def test_both_ways_say_the_same(beat):
    for body in BODIES:
        short, long = beat(body), beat(body, **LONG)
        assert told(short) == told(long), body
        assert short.headers["x-request-id"] != long.headers["x-request-id"]


def test_what_is_known_and_well_formed_takes_the_short_way(beat, no_route):
    reply = beat(BODIES[1])
    assert (reply.status_code, reply.json()["desired"]) == (200, "active")
    assert beat(b"{}", **LONG).status_code == 500


def test_what_is_unusual_takes_the_long_way(beat, no_route):
    content = b" " * (worker_front.MOST_BYTES - 1) + b"{}"
    for headers, sent, status in (
        ({"Content-Encoding": "gzip"}, gzip.compress(b"{}"), 500),
        ({}, content, 500),
        ({"Content-Type": "application/json; charset=utf-8"}, b"{}", 500),
        ({"Authorization": "Basic abc"}, b"{}", 401),
    ):
        assert beat(sent, **headers).status_code == status, headers


ATTEMPT = "att_01k9zzzzzzzzzzzzzzzzzzzzzz"
CALLS = {
    f"/v1/worker/attempts/{ATTEMPT}/claim": [b"", b"{}", b"{nonsense"],
    "/v1/worker/attempts/att_1/claim": [b""],
    "/v1/worker/claims": [
        b'{"attempt_ids": ["%s"]}' % ATTEMPT.encode(),
        b'{"attempt_ids": []}',
        b'{"attempt_ids": ["att_1"]}',
        b"",
    ],
    f"/v1/worker/attempts/{ATTEMPT}/finish": [
        b'{"epoch": 1, "outcome": "succeeded", "last_seq": 0}',
        b'{"epoch": 0, "outcome": "succeeded", "last_seq": 0}',
        b'{"epoch": 1, "outcome": "lost", "last_seq": 0}',
    ],
    "/v1/worker/finishes": [
        b'{"finishes": [{"attempt_id": "%s", "epoch": 1, "outcome": "failed", "last_seq": 0}]}'
        % ATTEMPT.encode(),
        b'{"finishes": [{"epoch": 1, "outcome": "failed", "last_seq": 0}]}',
    ],
}


def test_claims_and_ends_say_the_same_both_ways(app_client, credential, beat):
    shown = {"Authorization": f"Bearer {credential['credential']}"} | JSON
    for path, bodies in CALLS.items():
        for body in bodies:
            short = app_client.post(path, content=body, headers=shown)
            long = app_client.post(path, content=body, headers=shown | LONG)
            assert told(short) == told(long), (path, body)
            assert short.status_code in {200, 404, 409, 422}, (path, body)


def test_jobs_go_their_whole_way_in_front_of_the_framework(
    app_client, admin_headers, credential, beat, monkeypatch
):
    monkeypatch.setattr(worker_api, "worker_calls", None)
    shown = {"Authorization": f"Bearer {credential['credential']}"}
    platform = app_client.app.state.platform
    rounds = Rounds(platform.db, platform.patience, LiveQueue())
    lead = rounds.seek("ctl_test", alone=True)

    def offered(count):
        job = {"name": "n", "noop": {"seconds": 0}}
        for _ in range(count):
            app_client.post("/v1/jobs", json=job, headers=admin_headers)
        assert rounds.place(lead) == count
        with platform.db.read() as session:
            query = select(Attempt.id).where(Attempt.state == AttemptState.OFFERED)
            return list(session.scalars(query))

    done = {"outcome": "succeeded", "last_seq": 0}
    (only,) = offered(1)
    lease = app_client.post(f"/v1/worker/attempts/{only}/claim", headers=shown).json()
    end = app_client.post(
        f"/v1/worker/attempts/{only}/finish", json=done | {"epoch": lease["epoch"]}, headers=shown
    )
    assert (end.status_code, end.content) == (204, b"")
    both = offered(2)
    leases = app_client.post("/v1/worker/claims", json={"attempt_ids": both}, headers=shown).json()
    ends = [
        done | {"attempt_id": each["attempt_id"], "epoch": each["epoch"]}
        for each in leases["claims"]
    ]
    reply = app_client.post("/v1/worker/finishes", json={"finishes": ends}, headers=shown)
    assert (len(ends), reply.json()) == (2, {"refused": []})
    jobs = app_client.get("/v1/jobs", headers=admin_headers).json()["items"]
    assert [job["state"] for job in jobs] == ["succeeded"] * 3
    figures = app_client.get("/metrics", headers=admin_headers).text
    for path in ("attempts/{attempt_id}/claim", "attempts/{attempt_id}/finish", "claims"):
        assert f'route="/v1/worker/{path}",status="20' in figures


def test_an_order_is_told_at_once_and_a_revoked_credential_opens_nothing(
    app_client, admin_headers, credential, beat, no_route
):
    worker = f"/v1/workers/{credential['worker_id']}"
    app_client.post(f"{worker}/drain", headers=admin_headers)
    app_client.post(f"{worker}/rotate", headers=admin_headers)
    app_client.post(f"{worker}/collect-garbage", headers=admin_headers)
    reply = beat().json()
    assert (reply["desired"], reply["rotate"], reply["collect_garbage"]) == ("draining", True, True)
    app_client.post(f"{worker}/revoke", headers=admin_headers)
    assert (beat().status_code, beat().json()["code"]) == (401, "bad_worker_credential")


def test_whoever_ended_while_it_called_is_refused(app_client, credential, beat, no_route):
    platform = app_client.app.state.platform
    forget, platform.workers.forget = platform.workers.forget, lambda: None
    with platform.db.write() as tx:
        worker = dependencies.worker_credentials.get_worker(tx.session, credential["worker_id"])
        worker.revoked_at = tx.now
    reply = beat()
    platform.workers.forget = forget
    assert (reply.status_code, reply.json()["code"]) == (401, "bad_worker_credential")
    assert reply.headers["www-authenticate"] == "Bearer"


def test_heartbeats_confirm_the_credential_that_they_show(beat, clock, monkeypatch, credential):
    asked = []
    look_up = dependencies._worker_by

    def counted(platform, secret):
        asked.append(secret)
        return look_up(platform, secret)

    monkeypatch.setattr(dependencies, "_worker_by", counted)
    for _ in range(5):
        clock.advance(20)
        assert beat().status_code == 200
    assert asked == []
    clock.advance(31)
    assert beat().status_code == 200
    assert asked == [credential["credential"]]


def test_the_end_of_other_credentials_costs_a_worker_nothing(
    app_client, admin_headers, beat, credential, monkeypatch
):
    token = app_client.post("/v1/join-tokens", json={}, headers=admin_headers).json()["token"]
    body = registration(name="other").model_dump(mode="json")
    other = app_client.post(
        "/v1/worker/register", json=body, headers={"Authorization": f"Bearer {token}"}
    ).json()
    key = app_client.post("/v1/api-keys", json={"name": "k"}, headers=admin_headers).json()
    known = app_client.app.state.platform.workers
    assert len(known._known) == 1
    shown = {"Authorization": f"Bearer {other['credential']}"}
    assert app_client.post(BEAT, json={}, headers=shown).status_code == 200
    assert app_client.delete(f"/v1/api-keys/{key['id']}", headers=admin_headers).status_code == 204
    app_client.post(f"/v1/workers/{other['worker_id']}/revoke", headers=admin_headers)
    assert [holder.worker_id for holder, _ in known._known.values()] == [credential["worker_id"]]
    assert app_client.post(BEAT, json={}, headers=shown).status_code == 401


def test_an_old_credential_is_not_confirmed(app_client, beat, clock, credential):
    old = {"Authorization": f"Bearer {credential['credential']}"}
    fresh = app_client.post("/v1/worker/credential", headers=old).json()["credential"]
    platform = app_client.app.state.platform
    known = dict(platform.workers._known)
    new = {"Authorization": f"Bearer {fresh}"}
    assert app_client.post(BEAT, json={}, headers=new).status_code == 200
    platform.workers._known.update(known)  # as if the news had not come here
    clock.advance(20)
    assert beat().status_code == 200
    clock.advance(20)
    assert beat().status_code == 401


def test_they_are_counted_under_the_name_of_the_route(app_client, admin_headers, beat):
    beat()
    beat(**LONG)
    figures = app_client.get("/metrics", headers=admin_headers).text
    labels = f'method="POST",route="{BEAT}",status="200"'
    (line,) = [each for each in figures.splitlines() if f"request_seconds_count{{{labels}" in each]
    assert float(line.rpartition(" ")[2]) == 3


STREAM = "/v1/worker/stream"


def test_a_stream_is_refused_with_the_words_of_its_route(app_client, credential):
    shown = {"Authorization": f"Bearer {credential['credential']}"}
    nobody = app_client.get(STREAM)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "bad_worker_credential")
    odd = app_client.get(STREAM, headers=shown | {"Last-Event-ID": "1" * 41})
    assert (odd.status_code, odd.json()["errors"][0]["field"]) == (422, "last-event-id")
    platform = app_client.app.state.platform
    with platform.db.write() as tx:
        worker = dependencies.worker_credentials.get_worker(tx.session, credential["worker_id"])
        worker.deleted_at = tx.now
    gone = app_client.get(STREAM, headers=shown)
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert not platform.streams.open


def test_a_stream_has_the_headers_of_every_answer(app_client, credential):
    messages = []

    async def follow():
        heard = asyncio.Event()

        async def receive():
            await heard.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            messages.append(message)
            if message.get("body"):
                heard.set()

        shown = f"Bearer {credential['credential']}".encode()
        scope = {"type": "http", "method": "GET", "path": STREAM, "query_string": b""}
        scope |= {"headers": [(b"authorization", shown)], "app": app_client.app}
        await app_client.app(scope, receive, send)

    app_client.portal.call(follow)
    headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"].startswith("req_")
    assert "content-length" not in headers
    assert messages[1]["body"].startswith(b"id: ")
