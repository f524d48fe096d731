"""Nobody has a body read, opened or parsed before it is known who sends it."""

import gzip

import pytest
from controller_steps import registration

from st_controller.api import dependencies
from st_controller.api.worker_gate import STRANGERS_BYTES
from st_controller.services import worker_credentials

PACKED = {"Content-Encoding": "gzip", "Content-Type": "application/json"}


@pytest.fixture
def join_headers(app_client, admin_headers):
    reply = app_client.post("/v1/join-tokens", json={"uses": 1}, headers=admin_headers)
    return {"Authorization": f"Bearer {reply.json()['token']}"}


@pytest.fixture
def joined(app_client, join_headers):
    """Id and headers of a worker that has joined."""
    body = registration().model_dump(mode="json")
    reply = app_client.post("/v1/worker/register", json=body, headers=join_headers).json()
    return reply["worker_id"], {"Authorization": f"Bearer {reply['credential']}"}


def test_a_body_of_nobody_is_never_read(app_client):
    bodies = [(b"{nonsense", {}), (gzip.compress(b"0" * 2**25), PACKED)]
    for call in ("heartbeat", "register", "attempts/att_1/events"):
        # Whatever is no credential of a worker may be a join token to ``register``.
        false = {"Authorization": f"{'Basic' if call == 'register' else 'Bearer'} stw_nonsense"}
        for body, packed in bodies:
            for shown in ({}, false):
                headers = packed | shown
                reply = app_client.post(f"/v1/worker/{call}", content=body, headers=headers)
                assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")


def test_whoever_joins_may_send_little(app_client, join_headers):
    body = b" " * (STRANGERS_BYTES + 1)
    for sent, packed in ((body, {}), (gzip.compress(body), PACKED)):
        headers = join_headers | packed
        reply = app_client.post("/v1/worker/register", content=sent, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


def test_a_credential_that_became_void_at_its_first_use_opens_nothing(
    app_client, joined, monkeypatch
):
    worker_id, headers = joined
    fresh = app_client.post("/v1/worker/credential", headers=headers).json()["credential"]
    take = worker_credentials.take_into_force

    def too_late(tx, digest):
        worker_credentials.issue(tx, worker_id)
        return take(tx, digest)

    monkeypatch.setattr(dependencies.worker_credentials, "take_into_force", too_late)
    shown = {"Authorization": f"Bearer {fresh}"}
    reply = app_client.post("/v1/worker/heartbeat", json={}, headers=shown)
    assert (reply.status_code, reply.json()["code"]) == (401, "bad_worker_credential")
