"""What nobody sends by mistake: characters, numbers and claims that are meant to do harm."""

import asyncio
import base64
import json
from contextlib import aclosing

import pytest
from controller_steps import AT, document, file_of, log_line, registration
from pydantic import ValidationError
from sqlalchemy.exc import DatabaseError
from sqlalchemy.sql import text

from st_controller.api.streams import RECHECK_SECONDS, event_stream
from st_controller.dispatch.rounds import Rounds
from st_controller.domain.policy.roles import Role
from st_controller.errors import InvalidRequest, NotSignedIn
from st_controller.services import api_keys, identity, join_tokens, workers
from st_controller.services.caller import Caller
from st_shared.objectstore import S3Store
from st_shared.protocol.resources import ApiKeyRequest, JoinTokenRequest
from st_shared.protocol.worker import ArtifactFile

JSON = {"Content-Type": "application/json"}
DIGEST = "ab" * 32
ARCHIVES = [{"size": 1, "sha256": DIGEST}]


def cursor(*values) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@pytest.fixture
def join_token(app_client, admin_headers) -> str:
    reply = app_client.post("/v1/join-tokens", json={"uses": 9}, headers=admin_headers)
    return reply.json()["token"]


@pytest.fixture
def join_over_http(app_client, join_token):
    """Registers a worker; ``changes`` replace what it says of itself."""

    def join(**changes):
        said = {**registration().model_dump(mode="json"), **changes}
        headers = {**JSON, "Authorization": f"Bearer {join_token}"}
        return app_client.post("/v1/worker/register", content=json.dumps(said), headers=headers)

    return join


@pytest.fixture
def on_attempt(app_client, admin_headers, join_over_http):
    """Posts to the attempt that a worker holds."""
    credential = join_over_http().json()["credential"]
    platform = app_client.app.state.platform
    job = app_client.post("/v1/jobs", json=document(), headers=admin_headers).json()
    rounds = Rounds(platform.db, platform.patience)
    assert rounds.place(rounds.seek("ctl_test", alone=True)) == 1
    attempts = app_client.get(f"/v1/jobs/{job['id']}/attempts", headers=admin_headers).json()
    lease = f"/v1/worker/attempts/{attempts['items'][0]['id']}"

    def post(call, **body):
        headers = {**JSON, "Authorization": f"Bearer {credential}"}
        content = json.dumps({"epoch": 1, **body} if body else {})
        return app_client.post(f"{lease}/{call}", content=content, headers=headers)

    assert post("claim").status_code == 200
    return job["id"], post


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("GET", "jobs/%00"),
        ("GET", "jobs/a%00b/logs"),
        ("POST", "jobs/%00/cancel"),
        ("GET", "workers/%00"),
        ("POST", "workers/%00/drain"),
        ("GET", "datasets/%00"),
        ("GET", "datasets?cursor=%00"),
        ("GET", "api-keys?cursor=a%00"),
        ("DELETE", "api-keys/%00"),
        ("GET", "join-tokens?cursor=%00"),
        ("DELETE", "join-tokens/%00"),
        ("POST", "worker/attempts/%00/claim"),
        ("GET", "jobs?cursor=" + cursor(AT, "a\0b")),
        ("GET", "jobs?cursor=" + cursor(AT, "\ud800")),
        ("GET", "jobs?cursor=" + cursor("0001-01-01T00:00:00+14:00", "x")),
        ("GET", "jobs?cursor=" + cursor("9999-12-31T23:59:59-14:00", "x")),
    ],
)
def test_an_address_that_no_database_takes_is_refused(app_client, admin_headers, method, address):
    reply = app_client.request(method, f"/v1/{address}", headers=admin_headers)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("address", "body", "field"),
    [
        ("auth/login", {"username": "a\0b", "password": "x"}, "username"),
        ("api-keys", {"name": "a\0b"}, "name"),
        ("api-keys", {"name": "a", "scopes": ["\ud800"]}, "scopes.0"),
        ("join-tokens", {"labels": {"a": "\0"}}, "labels.a"),
        (
            "datasets",
            {"name": "d", "digest": DIGEST, "samples": 2**31, "archives": ARCHIVES},
            "samples",
        ),
    ],
)
def test_a_body_that_no_database_takes_is_refused(app_client, admin_headers, address, body, field):
    headers = {**admin_headers, **JSON}
    reply = app_client.post(f"/v1/{address}", content=json.dumps(body), headers=headers)
    assert reply.status_code == 422
    assert [wrong["field"] for wrong in reply.json()["errors"]] == [field]


@pytest.mark.parametrize("poison", ["\0", "\ud800"])
def test_a_job_with_unstorable_text_is_refused_and_others_are_placed(steps, poison):
    """PostgreSQL stores such JSON but cannot read it: one such job would end all scheduling."""
    steps.join()
    honest = steps.submit()
    poisoned = document()
    poisoned["training"]["validation"] = {"prompts": ["a cat", poison]}
    with pytest.raises(InvalidRequest) as refused:
        steps.submit_as(poisoned)
    assert [wrong.field for wrong in refused.value.errors] == ["training.validation.prompts.1"]
    assert steps.place() == 1
    assert steps.job(honest).attempts == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"agent_version": "\0"},
        {"inventory": {"memory_gb": float("inf")}},
        {"inventory": {"hostname": "\0"}},
        {"labels": {"a": "\ud800"}},
    ],
)
def test_a_worker_that_says_the_unstorable_is_refused(join_over_http, changes):
    if "inventory" in changes:
        honest = registration().model_dump(mode="json")["inventory"]
        changes = {"inventory": {**honest, **changes["inventory"]}}
    assert join_over_http(**changes).status_code == 422


def test_steps_beyond_the_columns_are_refused(app_client, on_attempt):
    _, post = on_attempt
    far = file_of("c/a", b"x").model_dump() | {"step": 2**31}
    assert post("artifacts", files=[far]).status_code == 422
    weights = file_of("c/w.bin", b"w")
    listed = {"path": "w.bin", "size": 1, "sha256": weights.sha256}
    manifest = {"step": 2**31, "spec_sha256": DIGEST, "files": [listed]}
    raw = json.dumps(manifest).encode()
    (ticket,) = post("artifacts", files=[file_of("c/manifest.json", raw).model_dump()]).json()[
        "tickets"
    ]
    assert app_client.put(ticket["url"], content=raw).status_code == 204
    reply = post("artifacts/complete", artifact_ids=[ticket["artifact_id"]])
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")


def test_journal_lines_that_nobody_could_be_sent_are_kept_as_errors(
    app_client, admin_headers, on_attempt
):
    job_id, post = on_attempt
    sample = {"at": AT, "kind": "sample", "step": 1, "path": "a.png"}
    lines = [
        {"seq": 1, **sample, "prompts": ["x" * 70_000]},
        {"seq": 2, **sample, "prompts": ["\ud800"]},
        log_line(3, "漢" * 16_000),
    ]
    assert post("events", events=lines).json()["acked_seq"] == 3
    reply = app_client.get(f"/v1/jobs/{job_id}/logs", headers=admin_headers)
    long, halved, whole = reply.json()["items"]
    assert "more than 65536" in long["message"]
    assert len(long["message"]) < 3000
    assert "surrogate" in halved["message"]
    assert whole["message"] == "漢" * 16_000


def test_files_larger_than_one_put_go_in_parts_and_larger_ones_than_s3_keeps_are_refused(
    steps, running
):
    steps.objects = S3Store.connect(
        "bucket", endpoint_url="http://127.0.0.1:9", region="x", access_key="a", secret_key="b"
    )
    small = file_of("w.bin", b"", "output")
    worker_id, attempt_id, _ = running
    [ticket] = steps.announce(worker_id, attempt_id, small.model_copy(update={"size": 6 * 2**30}))
    assert ticket.url is None
    assert ticket.part_bytes
    with pytest.raises(ValidationError, match="size"):
        ArtifactFile.model_validate(small.model_dump() | {"size": 5 * 2**40 + 1})


def test_errors_of_the_database_do_not_tell_the_values(db):
    with db.read() as session, pytest.raises(DatabaseError) as raised:
        session.execute(text("SELECT nothing FROM nowhere WHERE a = :a"), {"a": "argon2 hash"})
    assert "argon2 hash" not in str(raised.value)


def test_a_join_token_for_one_lets_one_in_however_many_ask_at_once(steps, together):
    with steps.db.write() as tx:
        request = JoinTokenRequest(uses=1)
        secret = join_tokens.create_token(
            tx, request, user_id=steps.admin.user_id, actor="root"
        ).token

    def join(number: int) -> bool:
        try:
            with steps.db.write() as tx:
                token = join_tokens.token_in_force(tx, secret)
                workers.join(tx, token, registration(f"w{number}"), f"{number:064}")
        except NotSignedIn:
            return False
        return True

    assert sum(together(join, range(6))) == 1


@pytest.fixture
def key_holder(steps):
    """A researcher with an API key, as its requests make them."""
    actor = steps.user("ada", Role.RESEARCHER)
    with steps.db.write() as tx:
        owner = Caller(**vars(actor), via="session", credential_id="")
        secret = api_keys.create_key(tx, owner, ApiKeyRequest(name="k")).key
    with steps.db.read() as session:
        caller, _ = identity.caller_by_api_key(session, secret, steps.clock())
    return caller


async def endless():
    while True:
        yield b": ping\n\n"


def pings(steps, caller) -> int:
    """How many pings come through before the stream ends, ``RECHECK_SECONDS`` apart; at most 3."""

    async def listen() -> int:
        told = 0
        async with aclosing(
            event_stream(steps.platform, caller, endless()).body_iterator
        ) as stream:
            async for _ in stream:
                told += 1
                steps.clock.advance(RECHECK_SECONDS)
                if told == 3:
                    break
        return told

    return asyncio.run(listen())


def test_a_stream_goes_on_while_the_key_is_in_force(steps, key_holder):
    assert pings(steps, key_holder) == 3


def test_a_stream_ends_when_its_key_is_revoked(steps, key_holder):
    with steps.db.write() as tx:
        api_keys.revoke_key(tx, key_holder, key_holder.credential_id)
    assert pings(steps, key_holder) == 1


@pytest.mark.parametrize("column", ["role = 'viewer'", "disabled_at = created_at"])
def test_a_stream_ends_when_its_user_may_less(steps, key_holder, column):
    with steps.db.write() as tx:
        tx.session.execute(text(f"UPDATE users SET {column} WHERE username = 'ada'"))
    assert pings(steps, key_holder) == 1
