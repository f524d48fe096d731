"""A worker's credential is changed; whatever dies in between, the worker is never locked out."""

import json
import stat

import httpx
import pytest

from st_shared.protocol.worker import Heartbeat
from st_worker.client import Controller
from st_worker.credential import Credential
from st_worker.errors import Refused, TemporaryTrouble
from st_worker.folder import StateFolder
from st_worker.joining import join
from st_worker.rotation import fetch_and_keep, settle

pytestmark = pytest.mark.anyio


class Killed(BaseException):
    """Stands for kill -9: nothing that the agent would still do is done."""


def _die(*_: object, **__: object) -> None:
    raise Killed


def _die_while_writing(folder, monkeypatch, *, after: int) -> None:
    """The ``after``-th file that is written from now on stays half written, beside the old one."""
    whole, count = Credential.save, 0

    def save(credential, into):
        nonlocal count
        count += 1
        if count < after:
            whole(credential, into)
            return
        aside = into.credential.with_name(f".{into.credential.name}.partial")
        aside.touch(mode=0o600)
        aside.write_text(credential.model_dump_json()[:40])
        raise Killed

    monkeypatch.setattr(Credential, "save", save)


def _kill_at(point, calls, folder, monkeypatch) -> None:
    if point == "before the call":
        monkeypatch.setattr(Controller, "new_credential", _die)
    elif point == "the answer is lost":

        async def lose(self):
            await real(self)
            raise Killed

        real = Controller.new_credential
        monkeypatch.setattr(Controller, "new_credential", lose)
    elif point == "both are half written":
        _die_while_writing(folder, monkeypatch, after=1)
    elif point == "both are written":
        monkeypatch.setattr(calls.secrets, "set", _die)
    elif point == "the new one alone is half written":
        _die_while_writing(folder, monkeypatch, after=2)


POINTS = [
    "before the call",
    "the answer is lost",
    "both are half written",
    "both are written",
    "the new one was used",
    "the new one alone is half written",
    "never",
]


@pytest.fixture
async def joined(controller, agent_settings, state_folder, description):
    """Calls of a worker that has joined, and opens another set as a restarted agent would."""
    opened = []

    async def open_again() -> Controller:
        calls = Controller(controller.url, agent_settings)
        opened.append(calls)
        token = None if state_folder.credential.exists() else await controller.join_token()
        await join(calls, state_folder, description, token)
        return calls

    yield open_again
    for calls in opened:
        await calls.close()


async def _rotate(calls, folder, point) -> None:
    """What an agent does when it is told to rotate, up to the point at which it dies."""
    await fetch_and_keep(calls, folder)
    await calls.heartbeat(Heartbeat())
    if point == "the new one was used":
        raise Killed
    await settle(calls, folder)


async def _beat(url: str, secret: str) -> int:
    async with httpx.AsyncClient(timeout=60) as client:
        bearer = {"Authorization": f"Bearer {secret}"}
        reply = await client.post(f"{url}/v1/worker/heartbeat", json={}, headers=bearer)
    return reply.status_code


@pytest.mark.parametrize("point", ["the answer is lost", "it was half written"])
async def test_an_agent_killed_while_it_joins_uses_the_token_once(
    controller, agent_settings, state_folder, description, monkeypatch, point
):
    token = await controller.join_token()
    register = Controller.register

    async def lose(calls, request, **how):
        await register(calls, request, **how)
        raise Killed

    for is_over in (False, True):
        calls = Controller(controller.url, agent_settings)
        with monkeypatch.context() as patched:
            if is_over:
                await join(calls, state_folder, description, token)
            else:
                if point == "the answer is lost":
                    patched.setattr(Controller, "register", lose)
                else:
                    _die_while_writing(state_folder, patched, after=1)
                with pytest.raises(Killed):
                    await join(calls, state_folder, description, token)
        await calls.close()
    (worker,) = await controller.workers()
    known = Credential.load(state_folder)
    assert (worker["id"], await _beat(controller.url, known.secret)) == (known.worker_id, 200)
    assert not state_folder.join_key.exists()
    (left,) = (await controller.get("/v1/join-tokens"))["items"]
    assert left["uses_left"] == 0


@pytest.mark.parametrize("point", POINTS)
async def test_an_agent_killed_at_any_point_of_a_rotation_comes_back(
    controller, joined, state_folder, monkeypatch, point
):
    calls = await joined()
    before = Credential.load(state_folder)
    (worker,) = await controller.workers()
    assert (await controller.post(f"/v1/workers/{worker['id']}/rotate"))["rotation_ordered"]
    with monkeypatch.context() as patched:
        _kill_at(point, calls, state_folder, patched)
        if point == "never":
            await _rotate(calls, state_folder, point)
        else:
            with pytest.raises(Killed):
                await _rotate(calls, state_folder, point)
    again = await joined()  # the next agent, from what lies in the folder
    reply = await again.heartbeat(Heartbeat())
    if reply.rotate:  # it was not over, and is ordered still
        await _rotate(again, state_folder, "never")
    (shown,) = await controller.workers()
    assert (shown["id"], shown["rotation_ordered"]) == (worker["id"], False)
    after = Credential.load(state_folder)
    assert after.previous is None
    assert after.secret != before.secret
    assert stat.S_IMODE(state_folder.credential.stat().st_mode) == 0o600
    assert await _beat(controller.url, after.secret) == 200
    assert await _beat(controller.url, before.secret) == 401


async def test_a_late_repetition_of_the_call_locks_nobody_out(controller, joined, state_folder):
    calls = await joined()
    before = Credential.load(state_folder)
    await fetch_and_keep(calls, state_folder)
    async with httpx.AsyncClient(timeout=60) as client:  # as a proxy may repeat it
        bearer = {"Authorization": f"Bearer {before.secret}"}
        late = await client.post(f"{controller.url}/v1/worker/credential", headers=bearer)
    assert late.status_code == 200
    reply = None
    while reply is None:
        reply = await _tried(calls)
    await settle(calls, state_folder)
    assert Credential.load(state_folder) == before
    assert (await calls.heartbeat(Heartbeat())).desired == "active"


async def _tried(calls):
    try:
        return await calls.heartbeat(Heartbeat())
    except TemporaryTrouble:
        return None


async def test_an_agent_rotates_when_told_while_its_work_and_its_stream_go_on(
    controller, start_agent, state_folder, until, tmp_path
):
    await start_agent()
    go = tmp_path / "go"
    script = f"echo before; while [ ! -e {go} ]; do sleep 0.02; done; echo after > outputs/a.txt"
    running = await controller.post("/v1/jobs", {"name": "long", "command": {"run": script}})
    await controller.job_in(running["id"], "running")
    (worker,) = await controller.workers()
    before = json.loads(state_folder.credential.read_text())["secret"]
    await controller.post(f"/v1/workers/{worker['id']}/rotate")

    async def is_changed():
        known = Credential.load(state_folder)
        return known.secret != before and known.previous is None

    await until(is_changed)
    go.touch()
    done = await controller.job_in(running["id"], "succeeded", "failed")
    assert (done["state"], done["attempts"]) == ("succeeded", 1)
    stored = await controller.get(f"/v1/jobs/{running['id']}/artifacts")
    assert [each["path"] for each in stored["items"]] == ["outputs/a.txt"]
    job = await controller.post("/v1/jobs", {"name": "n", "noop": {"seconds": 0}})
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert (done["state"], done["attempts"]) == ("succeeded", 1)
    assert await _beat(controller.url, before) == 401


async def test_a_revoked_worker_ends_its_work_and_leaves(
    controller, start_agent, state_folder, until
):
    hands = await start_agent()
    job = await controller.post("/v1/jobs", {"name": "n", "command": {"run": "sleep 600"}})
    await controller.job_in(job["id"], "running")
    (worker,) = await controller.workers()
    shown = await controller.post(f"/v1/workers/{worker['id']}/revoke")
    assert shown["reason"]["code"] == "revoked"
    departure = await hands.left()
    assert (departure.name, departure.exit_code) == ("REFUSED", 3)
    assert list(state_folder.attempts.iterdir()) == []
    assert (await controller.get(f"/v1/jobs/{job['id']}"))["state"] == "queued"
    with pytest.raises(Refused, match="bad_worker_credential"):
        await hands.controller.heartbeat(Heartbeat())


async def test_of_two_hosts_with_one_state_folder_the_later_works_and_no_job_runs_twice(
    controller, start_agent, state_folder, tmp_path
):
    """As where an image of a host that has joined is started twice."""
    first = await start_agent()
    job = await controller.post("/v1/jobs", {"name": "n", "noop": {"seconds": 0}})
    await controller.job_in(job["id"], "succeeded")
    copied = StateFolder(tmp_path / "copy")
    copied.create()
    copied.credential.write_bytes(state_folder.credential.read_bytes())
    second = await start_agent(folder=copied)
    departure = await first.left()
    assert (departure.name, departure.exit_code) == ("REFUSED", 3)
    script = {"run": f"echo ran >> {tmp_path / 'ran'}"}
    job = await controller.post("/v1/jobs", {"name": "once", "command": script})
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert (done["state"], done["attempts"]) == ("succeeded", 1)
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert not second.task.done()
    assert len(await controller.workers()) == 1
