"""``/v1/worker`` over HTTP: the contract's table, and one worker's life."""

import gzip
import hashlib
import json
import os
import re
from datetime import datetime

import pytest
from controller_steps import document, file_of, log_line, registration
from sqlalchemy import select

from st_controller.app import create_app
from st_controller.dispatch.rounds import Rounds
from st_controller.services import claims
from st_controller.settings import Settings
from st_controller.store.schema import Attempt, AuditEntry, Job, JobTransition
from st_shared.objectstore import LocalStore, StoreUnreachableError, multipart
from st_shared.protocol.endpoints import ENDPOINTS

QUIET = {
    "desired": "active",
    "stops": [],
    "rotate": False,
    "collect_garbage": False,
    "offers": [],
}
"""The answer to a heartbeat when nothing is to be done."""


ORDERS = ("cordon", "drain", "activate", "retire", "rotate", "revoke", "collect-garbage")


class Agent:
    """A worker that speaks HTTP; every call gives the response."""

    def __init__(self, client, secret: str) -> None:
        self._client, self.secret = client, secret

    def post(self, call: str, body=None):
        headers = {"Authorization": f"Bearer {self.secret}"}
        return self._client.post(f"/v1/worker/{call}", json=body, headers=headers)

    def post_packed(self, call: str, body, coding="gzip"):
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Encoding": coding}
        headers["Content-Type"] = "application/json"
        packed = gzip.compress(json.dumps(body).encode())
        return self._client.post(f"/v1/worker/{call}", content=packed, headers=headers)

    def register(self, **changes):
        return self.post("register", {**registration().model_dump(mode="json"), **changes})


@pytest.fixture
def join_secret(app_client, admin_headers) -> str:
    """The secret of a join token for one worker."""
    body = {"uses": 1, "labels": {"region": "eu"}}
    reply = app_client.post("/v1/join-tokens", json=body, headers=admin_headers)
    assert reply.status_code == 201, reply.text
    return reply.json()["token"]


@pytest.fixture
def agent(app_client, join_secret) -> Agent:
    """A worker that has joined."""
    joined = Agent(app_client, join_secret).register()
    assert joined.status_code == 200, joined.text
    return Agent(app_client, joined.json()["credential"])


@pytest.fixture
def place(app_client):
    """Places jobs as the dispatcher does; gives the attempt that was offered last."""
    platform = app_client.app.state.platform
    rounds = Rounds(platform.db, platform.patience)
    lead = rounds.seek("ctl_test", alone=True)

    def run(headers, job_id: str) -> str:
        assert rounds.place(lead) == 1
        reply = app_client.get(f"/v1/jobs/{job_id}/attempts", headers=headers)
        return reply.json()["items"][-1]["id"]

    return run


def submit(client, headers, **extra) -> str:
    reply = client.post("/v1/jobs", json=document(), headers={**headers, **extra})
    assert reply.status_code == 201, reply.text
    return reply.json()["id"]


def codes(*replies) -> list[tuple[int, str]]:
    return [(reply.status_code, reply.json()["code"]) for reply in replies]


def described(tmp_path) -> dict[tuple[str, str], tuple[str | None, str]]:
    """Body and answer of every call in the application's own description."""
    app = create_app(Settings(data_dir=tmp_path), dispatch=False)
    app.state.platform.db.close()
    found = {}
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/v1/worker/"):
                call = (method.upper(), re.sub(r"{\w+}", "{}", path.removeprefix("/v1/worker/")))
                found[call] = (_model(operation.get("requestBody")), _answer(operation))
    return found


def _answer(operation) -> str:
    ((status, response),) = [
        item for item in operation["responses"].items() if item[0].startswith("2")
    ]
    return status if status != "200" else _model(response) or "events"


def _model(described_body) -> str | None:
    for content in (described_body or {}).get("content", {}).values():
        return content.get("schema", {}).get("$ref", "").rpartition("/")[2] or None
    return None


def test_the_routes_are_those_of_the_contract_and_no_others(tmp_path):
    wanted = {
        (each.method, re.sub(r"{\w+}", "{}", each.path.removeprefix("/"))): (
            each.body and each.body.__name__,
            each.answer.__name__ if each.answer else "events" if each.is_stream else "204",
        )
        for each in ENDPOINTS
    }
    assert len(wanted) == len(ENDPOINTS)
    assert described(tmp_path) == wanted


def post_packed_again(agent, lease, batch) -> None:
    again = agent.post_packed(f"{lease}/events", batch)
    assert again.json() == {"acked_seq": 2, "stop": None}
    unknown = agent.post_packed(f"{lease}/events", batch, coding="br")
    assert codes(unknown) == [(415, "coding_unknown")]
    assert unknown.headers["accept-encoding"] == "gzip"


def read_in_other_ways(app_client, admin_headers, job_id) -> None:
    for asked, seqs in {
        "tail=1": [2],
        "tail=9&before=1:2": [1],
        "attempt=2": [],
        "since=2026-01-01T00:00:00Z": [1, 2],
        "since=2026-01-02T00:00:00Z": [],
    }.items():
        chosen = app_client.get(f"/v1/jobs/{job_id}/logs?{asked}", headers=admin_headers).json()
        assert [line["seq"] for line in chosen["items"]] == seqs, asked
    for unfit, field in {"tail=1&after=1:1": "after", "before=1:1": "before"}.items():
        refused = app_client.get(f"/v1/jobs/{job_id}/logs?{unfit}", headers=admin_headers)
        assert (*codes(refused), refused.json()["errors"][0]["field"]) == (
            (422, "invalid_request"),
            field,
        )
    odd = app_client.get(f"/v1/jobs/{job_id}/logs?tail=1&before=x", headers=admin_headers)
    assert odd.json()["errors"][0]["field"] == "before"
    drawn = app_client.get(f"/v1/jobs/{job_id}/metrics:curve", headers=admin_headers)
    assert drawn.json() == {"items": [], "total": 0}


def test_a_workers_life(app_client, admin_headers, agent, place):
    job_id = submit(app_client, admin_headers)
    attempt_id = place(admin_headers, job_id)
    lease = f"attempts/{attempt_id}"
    claim = agent.post(f"{lease}/claim").json()
    assert (claim["epoch"], claim["slots"], claim["job_id"]) == (1, [0], job_id)
    assert (claim["resume"], claim["acked_seq"]) == (None, 0)

    gap = agent.post(f"{lease}/events", {"epoch": 1, "events": [log_line(2)]})
    assert (gap.status_code, gap.json()["code"], gap.json()["acked_seq"]) == (
        409,
        "sequence_gap",
        0,
    )
    batch = {"epoch": 1, "state": "running", "events": [log_line(1), log_line(2)]}
    assert agent.post(f"{lease}/events", batch).json() == {"acked_seq": 2, "stop": None}
    post_packed_again(agent, lease, batch)
    beat = {"holding": [{"attempt_id": attempt_id, "epoch": 1}]}
    assert agent.post("heartbeat", beat).json() == QUIET

    body = b"weights"
    offer = {"epoch": 1, "files": [file_of("output/w.bin", body, "output").model_dump()]}
    (ticket,) = agent.post(f"{lease}/artifacts", offer).json()["tickets"]
    done = {"epoch": 1, "artifact_ids": [ticket["artifact_id"]]}
    missing = agent.post(f"{lease}/artifacts/complete", done)
    torn = app_client.put(ticket["url"], content=b"weight", headers=ticket["headers"])
    assert codes(missing, torn) == [(409, "not_uploaded"), (422, "checksum")]
    stored = app_client.put(ticket["url"], content=body, headers=ticket["headers"])
    assert stored.status_code == 204
    assert agent.post(f"{lease}/artifacts/complete", done).status_code == 204
    (shown,) = app_client.get(f"/v1/jobs/{job_id}/artifacts", headers=admin_headers).json()["items"]
    assert app_client.get(shown["url"]).content == body
    assert shown["sha256"] == hashlib.sha256(body).hexdigest()

    early = agent.post(f"{lease}/finish", {"epoch": 1, "outcome": "succeeded", "last_seq": 3})
    assert (early.status_code, early.json()["acked_seq"]) == (409, 2)
    finish = {"epoch": 1, "outcome": "succeeded", "last_seq": 2}
    for _ in range(2):
        assert agent.post(f"{lease}/finish", finish).status_code == 204
    late = agent.post(f"{lease}/events", {"epoch": 1, "events": [log_line(3)]})
    assert codes(late) == [(409, "stale_lease")]

    job = app_client.get(f"/v1/jobs/{job_id}", headers=admin_headers).json()
    assert (job["state"], job["attempts"]) == ("succeeded", 1)
    logs = app_client.get(f"/v1/jobs/{job_id}/logs?limit=1", headers=admin_headers).json()
    assert [(line["seq"], line["message"]) for line in logs["items"]] == [(1, "line 1")]
    rest = app_client.get(
        f"/v1/jobs/{job_id}/logs?after={logs['next_cursor']}", headers=admin_headers
    ).json()
    assert ([line["seq"] for line in rest["items"]], rest["next_cursor"]) == ([2], None)
    read_in_other_ways(app_client, admin_headers, job_id)
    stream = app_client.get(f"/v1/jobs/{job_id}/events", headers=admin_headers)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.count("event: log\n") == 2


def test_joining(app_client, admin_headers, join_secret):
    newcomer = Agent(app_client, join_secret)
    foreign = newcomer.register(protocol=99)
    joined = newcomer.register(labels={"region": "us", "rack": "7"}).json()
    used_up = newcomer.register()
    assert codes(foreign, used_up) == [(422, "protocol_version"), (401, "bad_join_token")]
    assert codes(Agent(app_client, join_secret[:-1]).register()) == [(401, "bad_join_token")]
    assert joined["labels"] == {"region": "eu", "rack": "7"}
    assert joined["desired"] == "active"
    back = Agent(app_client, joined["credential"]).register().json()
    assert (back["worker_id"], back["credential"]) == (joined["worker_id"], None)
    (shown,) = app_client.get("/v1/workers", headers=admin_headers).json()["items"]
    assert (shown["id"], shown["state"], shown["slots_free"]) == (back["worker_id"], "online", 1)


def joined(client, token, key):
    body = registration("w").model_dump(mode="json") | {"join_key": key}
    reply = client.post(
        "/v1/worker/register", json=body, headers={"Authorization": f"Bearer {token}"}
    )
    return reply.status_code, reply.json()


def beaten(client, credential) -> int:
    bearer = {"Authorization": f"Bearer {credential}"}
    return client.post("/v1/worker/heartbeat", json={}, headers=bearer).status_code


def test_a_token_is_exchanged_once_however_often_the_answer_is_lost(app_client, admin_headers):
    made = app_client.post("/v1/join-tokens", json={"uses": 1}, headers=admin_headers).json()
    token, key = made["token"], "k" * 32
    (_, first), (status, again) = (joined(app_client, token, key) for _ in range(2))
    assert (status, again["worker_id"]) == (200, first["worker_id"])
    used = [beaten(app_client, each["credential"]) for each in (again, first)]
    assert used == [200, 401]
    for other in ("o" * 32, None):
        status, refused = joined(app_client, token, other)
        assert (status, refused["code"]) == (401, "bad_join_token")
    (shown,) = app_client.get("/v1/workers", headers=admin_headers).json()["items"]
    assert shown["id"] == first["worker_id"]
    app_client.post(f"/v1/workers/{first['worker_id']}/revoke", headers=admin_headers)
    assert joined(app_client, token, key)[0] == 401
    app_client.delete(f"/v1/join-tokens/{made['id']}", headers=admin_headers)


def test_a_worker_that_was_revoked_comes_back_with_its_key_as_another(app_client, admin_headers):
    made = app_client.post("/v1/join-tokens", json={"uses": 2}, headers=admin_headers).json()
    _, first = joined(app_client, made["token"], "k" * 32)
    app_client.post(f"/v1/workers/{first['worker_id']}/revoke", headers=admin_headers)
    status, second = joined(app_client, made["token"], "k" * 32)
    assert status == 200
    assert second["worker_id"] != first["worker_id"]
    assert joined(app_client, made["token"], "n" * 32)[0] == 401


def test_a_worker_cannot_say_that_it_is_of_another_provider(app_client, admin_headers):
    body = {"provider": "aws", "labels": {"provider": "gcp"}}
    token = app_client.post("/v1/join-tokens", json=body, headers=admin_headers).json()["token"]
    joined = Agent(app_client, token).register(labels={"provider": "mine"}).json()
    assert joined["labels"] == {"provider": "aws"}
    again = Agent(app_client, joined["credential"]).register(labels={"provider": "mine"}).json()
    assert again["labels"] == {"provider": "aws"}


def test_a_revoked_credential_opens_nothing(app_client, admin_headers, agent):
    (shown,) = app_client.get("/v1/workers", headers=admin_headers).json()["items"]
    revoked = app_client.post(f"/v1/workers/{shown['id']}/revoke", headers=admin_headers).json()
    assert (revoked["state"], revoked["reason"]["code"]) == ("gone", "revoked")
    headers = {"Authorization": f"Bearer {agent.secret}"}
    stream = app_client.get("/v1/worker/stream", headers=headers)
    calls = [agent.post(call, {}) for call in ("heartbeat", "credential", "leave", "claims")]
    assert codes(*calls, agent.register(), stream) == [(401, "bad_worker_credential")] * 6


def test_only_operators_order_workers(app_client, admin_headers, agent):
    (shown,) = app_client.get("/v1/workers", headers=admin_headers).json()["items"]
    asked = {"name": "weak", "scopes": ["worker.view"]}
    key = app_client.post("/v1/api-keys", json=asked, headers=admin_headers).json()["key"]
    weak = {"Authorization": f"Bearer {key}"}
    path = f"/v1/workers/{shown['id']}"
    refused = [
        *(app_client.post(f"{path}/{order}", headers=weak) for order in ORDERS),
        app_client.patch(f"{path}/labels", json={}, headers=weak),
        app_client.delete(path, headers=weak),
    ]
    assert codes(*refused) == [(403, "not_permitted")] * (len(ORDERS) + 2)
    assert app_client.get(path, headers=weak).json()["desired"] == "active"


def test_the_credential_of_a_retired_worker_is_void(app_client, admin_headers, agent):
    (shown,) = app_client.get("/v1/workers", headers=admin_headers).json()["items"]
    assert agent.post("heartbeat", {}).status_code == 200
    app_client.post(f"/v1/workers/{shown['id']}/drain", headers=admin_headers)
    assert agent.post("heartbeat", {}).json()["desired"] == "draining"
    retired = app_client.post(f"/v1/workers/{shown['id']}/retire", headers=admin_headers)
    assert retired.json()["desired"] == "retired"
    headers = {"Authorization": f"Bearer {agent.secret}"}
    stream = app_client.get("/v1/worker/stream", headers=headers)
    refused = codes(agent.post("heartbeat", {}), agent.register(), stream)
    assert refused == [(401, "bad_worker_credential")] * 3
    assert app_client.get("/v1/workers", headers=admin_headers).json()["items"] == []


def test_submissions_over_http(app_client, admin_headers):
    headers = {**admin_headers, "Idempotency-Key": "k-1"}
    first = app_client.post("/v1/jobs", json=document(), headers=headers)
    again = app_client.post("/v1/jobs", json=document(), headers=headers)
    other = app_client.post("/v1/jobs", json=document("other"), headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    unknown = app_client.post(
        "/v1/jobs", json=document(datasets=[{"name": "nope"}]), headers=admin_headers
    )
    cursor = app_client.get("/v1/jobs?cursor=e30", headers=admin_headers)
    place = app_client.get(
        f"/v1/jobs/{first.json()['id']}/logs?after=1:{10**12}", headers=admin_headers
    )
    assert codes(other, unknown, cursor, place) == [
        (409, "idempotency_mismatch"),
        (422, "invalid_spec"),
        (422, "invalid_request"),
        (422, "invalid_request"),
    ]
    assert unknown.json()["errors"][0]["field"] == "training.datasets.0.name"


def test_paths_that_no_store_can_hold_are_refused(app_client, admin_headers, agent, place):
    attempt_id = place(admin_headers, submit(app_client, admin_headers))
    lease = f"attempts/{attempt_id}"
    agent.post(f"{lease}/claim")
    long = {"epoch": 1, "files": [file_of("x" * 300, b"x", "output").model_dump()]}
    assert agent.post(f"{lease}/artifacts", long).status_code == 422
    nested = [file_of(path, b"x", "output").model_dump() for path in ("a", "a/b")]
    reply = agent.post(f"{lease}/artifacts", {"epoch": 1, "files": nested})
    first, second = reply.json()["tickets"]
    assert app_client.put(first["url"], content=b"x").status_code == 204
    refused = app_client.put(second["url"], content=b"x")
    assert codes(refused) == [(422, "bad_key")]
    assert json.loads(refused.text)["hint"]


@pytest.fixture
def wide_agent(app_client, admin_headers) -> Agent:
    """A worker of eight slots."""
    token = app_client.post("/v1/join-tokens", json={"uses": 1}, headers=admin_headers).json()
    described = registration(slots=8).model_dump(mode="json")
    joined = Agent(app_client, token["token"]).post("register", {**described, "name": "wide"})
    return Agent(app_client, joined.json()["credential"])


@pytest.fixture
def offered(app_client, admin_headers, wide_agent):
    """Attempts of three no-op jobs that are offered to the worker of eight slots."""
    platform = app_client.app.state.platform
    rounds = Rounds(platform.db, platform.patience)
    jobs = []
    for number in range(3):
        body = {"name": f"n{number}", "noop": {"seconds": 0}}
        jobs.append(app_client.post("/v1/jobs", json=body, headers=admin_headers).json()["id"])
    assert rounds.place(rounds.seek("ctl_test", alone=True)) == 3
    return [
        app_client.get(f"/v1/jobs/{job_id}/attempts", headers=admin_headers).json()["items"][0][
            "id"
        ]
        for job_id in jobs
    ]


def finish_of(attempt_id: str, **changes):
    done = {"attempt_id": attempt_id, "epoch": 1, "outcome": "succeeded", "last_seq": 0}
    return {**done, **changes}


def refusals(reply) -> list[tuple[str, str]]:
    assert reply.status_code == 200, reply.text
    return [(each["attempt_id"], each["problem"]["code"]) for each in reply.json()["refused"]]


def test_many_are_claimed_and_finished_together(app_client, admin_headers, wide_agent, offered):
    for _ in range(2):  # an answer may be lost, and the call repeated
        reply = wide_agent.post("claims", {"attempt_ids": offered})
        assert refusals(reply) == []
        assert [claim["attempt_id"] for claim in reply.json()["claims"]] == offered
        assert {claim["epoch"] for claim in reply.json()["claims"]} == {1}
    for _ in range(2):
        finishes = {"finishes": [finish_of(attempt_id) for attempt_id in offered]}
        assert refusals(wide_agent.post("finishes", finishes)) == []
    shown = app_client.get("/v1/jobs", headers=admin_headers).json()["items"]
    assert [job["state"] for job in shown] == ["succeeded"] * 3
    (worker,) = app_client.get("/v1/workers", headers=admin_headers).json()["items"]
    assert worker["slots_free"] == 8


def test_one_of_many_that_is_refused_harms_no_other(app_client, admin_headers, wide_agent, offered):
    one, two, three = offered
    strange = "att_00000000000000000000000000"
    assert wide_agent.post(f"attempts/{one}/claim").status_code == 200
    app_client.post(
        f"/v1/jobs/{_job_of(app_client, admin_headers, two)}/cancel", headers=admin_headers
    )
    reply = wide_agent.post("claims", {"attempt_ids": [strange, *offered]})
    assert sorted(refusals(reply)) == sorted([(strange, "offer_gone"), (two, "offer_gone")])
    assert [claim["attempt_id"] for claim in reply.json()["claims"]] == [one, three]
    finishes = [finish_of(one, last_seq=5), finish_of(two), finish_of(three), finish_of(strange)]
    reply = wide_agent.post("finishes", {"finishes": finishes})
    assert refusals(reply) == [
        (one, "sequence_gap"),
        (two, "stale_lease"),
        (strange, "stale_lease"),
    ]
    assert reply.json()["refused"][0]["problem"]["acked_seq"] == 0
    states = {job["name"]: job["state"] for job in _jobs(app_client, admin_headers)}
    assert states == {"n0": "assigned", "n1": "cancelled", "n2": "succeeded"}


def test_what_was_offered_to_another_worker_cannot_be_claimed_or_finished(offered, agent):
    reply = agent.post("claims", {"attempt_ids": offered})
    assert [code for _, code in refusals(reply)] == ["offer_gone"] * 3
    reply = agent.post("finishes", {"finishes": [finish_of(offered[0])]})
    assert refusals(reply) == [(offered[0], "stale_lease")]


def test_an_answer_holds_so_many_bytes_and_the_rest_is_asked_for_alone(
    wide_agent, offered, monkeypatch
):
    one, two, three = offered
    alone = len(wide_agent.post(f"attempts/{one}/claim").content)
    for room, told in ((0, [one]), (alone * 2 + 20, [one, two]), (alone * 4, offered)):
        monkeypatch.setattr(claims, "LARGEST_CLAIMS", room)
        reply = wide_agent.post("claims", {"attempt_ids": offered})
        assert refusals(reply) == []
        assert [claim["attempt_id"] for claim in reply.json()["claims"]] == told
    assert wide_agent.post(f"attempts/{three}/claim").json()["epoch"] == 1


def test_a_batch_is_bounded(wide_agent):
    empty = wide_agent.post("claims", {"attempt_ids": []})
    long = wide_agent.post("claims", {"attempt_ids": ["att_0"] * 65})
    assert codes(empty, long) == [(422, "invalid_request")] * 2


def _jobs(client, headers):
    return client.get("/v1/jobs", headers=headers).json()["items"]


def _job_of(client, headers, attempt_id: str) -> str:
    for job in _jobs(client, headers):
        tries = client.get(f"/v1/jobs/{job['id']}/attempts", headers=headers).json()["items"]
        if attempt_id in [attempt["id"] for attempt in tries]:
            return job["id"]
    raise LookupError(attempt_id)


def test_the_end_of_many_leaves_the_same_traces_as_that_of_one(
    app_client, admin_headers, wide_agent, offered
):
    one, *others = offered
    wide_agent.post("claims", {"attempt_ids": offered})
    alone = {name: value for name, value in finish_of(one).items() if name != "attempt_id"}
    assert wide_agent.post(f"attempts/{one}/finish", alone).status_code == 204
    wide_agent.post("finishes", {"finishes": [finish_of(attempt_id) for attempt_id in others]})
    platform = app_client.app.state.platform
    with platform.db.read() as session:
        traces = [_traces(session, attempt_id) for attempt_id in offered]
    assert traces[0] == traces[1] == traces[2]
    assert [state for state, _ in traces[0]["transitions"]][-2:] == ["running", "succeeded"]


def _traces(session, attempt_id: str):
    """All that an ended attempt and its job have left, without ids, names and moments."""
    attempt = session.get_one(Attempt, attempt_id)
    job = session.get_one(Job, attempt.job_id)
    told = session.scalars(
        select(AuditEntry).where(AuditEntry.target.in_((attempt.id, job.id)))
    ).all()
    moves = session.scalars(
        select(JobTransition).where(JobTransition.job_id == job.id).order_by(JobTransition.version)
    ).all()
    own = {"id", "name", "job_id", "spec", "slots"}
    columns = {
        f"{row.__tablename__}.{column.name}": getattr(row, column.name)
        for row in (attempt, job)
        for column in row.__table__.columns
        if column.name not in own
    }
    return {
        "columns": {name: isinstance(value, datetime) or value for name, value in columns.items()},
        "audit": sorted(
            (entry.actor, entry.action, {**entry.details, "job": "", "name": ""}.__repr__())
            for entry in told
        ),
        "transitions": [(move.state, move.reason) for move in moves],
    }


def test_what_waits_for_many_is_released_by_their_end(
    app_client, admin_headers, wide_agent, offered
):
    parents = [_job_of(app_client, admin_headers, attempt_id) for attempt_id in offered]
    child = {"name": "child", "noop": {"seconds": 0}, "after": parents}
    made = app_client.post("/v1/jobs", json=child, headers=admin_headers).json()
    wide_agent.post("claims", {"attempt_ids": offered})
    wide_agent.post("finishes", {"finishes": [finish_of(attempt_id) for attempt_id in offered[:2]]})
    with app_client.app.state.platform.db.read() as session:
        assert session.get_one(Job, made["id"]).open_parents == 1
    wide_agent.post("finishes", {"finishes": [finish_of(offered[2])]})
    with app_client.app.state.platform.db.read() as session:
        assert session.get_one(Job, made["id"]).open_parents == 0


def test_a_large_file_comes_in_parts(app_client, admin_headers, agent, place, monkeypatch):
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", 1 << 20)
    monkeypatch.setattr(multipart, "PART_BYTES", 1 << 20)
    job_id = submit(app_client, admin_headers)
    lease = f"attempts/{place(admin_headers, job_id)}"
    agent.post(f"{lease}/claim")
    body = os.urandom((1 << 20) + 5)
    pieces = [body[: 1 << 20], body[1 << 20 :]]
    digests = [hashlib.sha256(piece).hexdigest() for piece in pieces]
    offer = {"epoch": 1, "files": [file_of("output/w.bin", body, "output").model_dump()]}
    (ticket,) = agent.post(f"{lease}/artifacts", offer).json()["tickets"]
    assert (ticket["url"], ticket["part_bytes"]) == (None, 1 << 20)
    wanted = {
        "epoch": 1,
        "artifact_id": ticket["artifact_id"],
        "parts": [{"number": 1, "sha256": digests[0]}, {"number": 2, "sha256": digests[1]}],
    }
    tickets = agent.post(f"{lease}/artifacts/parts", wanted).json()["tickets"]
    torn = app_client.put(tickets[0]["url"], content=pieces[0][:-1] + b"x")
    assert codes(torn) == [(422, "checksum")]
    for part, piece in zip(tickets, pieces, strict=True):
        assert not part["is_stored"]
        assert app_client.put(part["url"], content=piece).status_code == 204
    again = agent.post(f"{lease}/artifacts/parts", wanted).json()["tickets"]
    assert [part["is_stored"] for part in again] == [True, True]
    moved = tickets[0]["url"].replace("part=1", "part=2")
    assert app_client.put(moved, content=pieces[0]).status_code == 403
    uploads = [{"artifact_id": ticket["artifact_id"], "parts": [{"sha256": d} for d in digests]}]
    done = {"epoch": 1, "artifact_ids": [ticket["artifact_id"]], "uploads": uploads}
    assert agent.post(f"{lease}/artifacts/complete", done).status_code == 204
    (shown,) = app_client.get(f"/v1/jobs/{job_id}/artifacts", headers=admin_headers).json()["items"]
    assert app_client.get(shown["url"]).content == body
    over = app_client.put(tickets[0]["url"], content=pieces[0])
    assert over.status_code == 404


def test_a_store_that_is_away_is_said_to_pass(app_client, admin_headers, agent, place, monkeypatch):
    job_id = submit(app_client, admin_headers)
    lease = f"attempts/{place(admin_headers, job_id)}"
    agent.post(f"{lease}/claim")
    offer = {"epoch": 1, "files": [file_of("output/w.bin", b"w", "output").model_dump()]}
    (ticket,) = agent.post(f"{lease}/artifacts", offer).json()["tickets"]

    def away(*_args, **_options):
        raise StoreUnreachableError("connection refused")

    monkeypatch.setattr(LocalStore, "stat", away)
    done = {"epoch": 1, "artifact_ids": [ticket["artifact_id"]]}
    reply = agent.post(f"{lease}/artifacts/complete", done)
    assert codes(reply) == [(503, "unavailable")]
    assert reply.headers["Retry-After"] == "5"


def test_workers_are_listed_page_by_page_and_asked_for_by_name_and_id(app_client, admin_headers):
    token = app_client.post("/v1/join-tokens", json={"uses": 5}, headers=admin_headers).json()
    joined = [Agent(app_client, token["token"]).register(name=name).json() for name in "cabba"]
    ids = [each["worker_id"] for each in joined]

    def listed(**asked):
        return app_client.get("/v1/workers", params=asked, headers=admin_headers).json()

    order = sorted(zip("cabba", ids, strict=True))
    found, cursor = [], {}
    for size in (2, 2, 1):
        page = listed(limit=2, **cursor)
        assert len(page["items"]) == size
        found += [(each["name"], each["id"]) for each in page["items"]]
        cursor = {"cursor": page["next_cursor"]}
    assert (found, page["next_cursor"]) == (order, None)
    assert [each["id"] for each in listed(name="b")["items"]] == sorted([ids[2], ids[3]])
    assert [each["id"] for each in listed(id=[ids[0], ids[4]])["items"]] == [ids[4], ids[0]]
    assert listed(id="wrk_none", name="b") == {"items": [], "next_cursor": None}
    for bad in ("x", "bnVsbA", "WzEsMiwzXQ"):
        assert listed(cursor=bad)["errors"][0]["field"] == "cursor"
