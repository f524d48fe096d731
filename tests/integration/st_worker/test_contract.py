"""The real agent against the real controller: every endpoint and every event of the contract.

What is to be seen is read from ``ENDPOINTS`` and ``STREAM_EVENTS``: a call that the agent does not
make, that the controller does not serve, or whose body is not what the contract says, fails here.
"""

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from served import served

from st_shared.objectstore import multipart
from st_shared.protocol import endpoints
from st_shared.protocol.endpoints import ENDPOINTS, PREFIX, STREAM_EVENTS, Endpoint, name_of
from st_shared.protocol.sse import EventReader
from st_worker.agent import Agent, Departure
from st_worker.client import Controller
from st_worker.folder import StateFolder
from st_worker.serve import describe
from st_worker.transfer import Transfer

pytestmark = pytest.mark.anyio


class Witness:
    """Stands before the application and notes what was called, answered and streamed."""

    def __init__(self) -> None:
        self.succeeded: set[str] = set()
        """Paths of endpoints that were called and answered as the contract says."""
        self.streamed: set[str] = set()
        self.wrong: list[str] = []

    def before(self, app):
        async def witnessed(scope, receive, send):
            if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
                await app(scope, receive, send)
                return
            await self._watch(app, scope, receive, send)

        return witnessed

    async def _watch(self, app, scope, receive, send) -> None:
        endpoint = endpoint_of(scope["method"], scope["path"])
        if endpoint is None:
            self.wrong.append(f"{scope['method']} {scope['path']} is not in the contract")
        asked, answered, status = bytearray(), bytearray(), [0]
        reader = EventReader()

        async def listen():
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def tell(message):
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            elif endpoint is not None and endpoint.is_stream and status[0] == 200:
                self._note_events(reader, message.get("body", b""))
                self.succeeded.add(endpoint.path)
            else:
                answered.extend(message.get("body", b""))
            await send(message)

        await app(scope, listen, tell)
        if endpoint is not None and not endpoint.is_stream and 200 <= status[0] < 300:
            packed = dict(scope["headers"]).get(b"content-encoding") == b"gzip"
            body = gzip.decompress(bytes(asked)) if packed else bytes(asked)
            self._note_call(endpoint, body, bytes(answered), status[0])

    def _note_call(self, endpoint: Endpoint, asked: bytes, answered: bytes, status: int) -> None:
        problems = [
            *differences("body", endpoint.body, asked),
            *differences("answer", endpoint.answer, answered),
            *([f"status {status}"] if status != endpoint.status else []),
        ]
        self.wrong += [f"{endpoint.path}: {problem}" for problem in problems]
        if not problems:
            self.succeeded.add(endpoint.path)

    def _note_events(self, reader: EventReader, piece: bytes) -> None:
        for event in reader.read(piece.decode().split("\n")):
            kind = STREAM_EVENTS.get(event.event)
            if kind is None:
                self.wrong.append(f"the event {event.event} is not in the contract")
                continue
            self.wrong += differences(f"event {event.event}", kind, event.data.encode())
            self.streamed.add(event.event)


def endpoint_of(method: str, path: str) -> Endpoint | None:
    for endpoint in ENDPOINTS:
        pattern = re.sub(r"{\w+}", "[^/]+", PREFIX + endpoint.path)
        if endpoint.method == method and re.fullmatch(pattern, path):
            return endpoint
    return None


def differences(what: str, model, raw: bytes) -> Iterator[str]:
    """How bytes differ from a model of the contract: keys that it lacks, or a value it refuses."""
    if model is None:
        if raw:
            yield f"the {what} should be empty"
        return
    try:
        model.model_validate_json(raw)
        unknown = set(json.loads(raw)) - set(model.model_fields)
    except ValueError as error:
        yield f"the {what} is no {model.__name__}: {error}"
        return
    if unknown:
        yield f"the {what} has {sorted(unknown)}, which {model.__name__} has not"


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
async def controller(settings, witness):
    async with served(settings, wrap=witness.before) as running:
        yield running


@pytest.fixture
def followed(monkeypatch) -> set[str]:
    """Names of the events that agents have followed."""
    seen: set[str] = set()
    follow = Agent._follow

    def spy(agent, event):
        follow(agent, event)
        seen.add(name_of(event))

    monkeypatch.setattr(Agent, "_follow", spy)
    return seen


@pytest.fixture
async def agents(controller, agent_settings, tmp_path):
    """Two agents of real workers, each on a folder of its own; the second is ephemeral."""
    async with AsyncExitStack() as stack:
        running = []
        for name, ephemeral in (("one", False), ("two", True)):
            folder = StateFolder(tmp_path / name)
            folder.create()
            calls = Controller(controller.url, agent_settings)
            transfer = Transfer(controller.url, agent_settings)
            stack.push_async_callback(calls.close)
            stack.push_async_callback(transfer.close)
            described = describe(folder, name, 4, {}, ephemeral)
            agent = Agent(folder, calls, transfer, described, agent_settings)
            task = asyncio.create_task(agent.run(await controller.join_token()))
            stack.push_async_callback(_end, agent, task)
            running.append((agent, task))
        yield running


async def _end(agent, task) -> None:
    agent.leave(Departure.REFUSED)
    await asyncio.wait({task}, timeout=120)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """So that a small file is sent in parts."""
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", 64 << 10)
    monkeypatch.setattr(multipart, "PART_BYTES", 1 << 20)


def test_every_endpoint_that_has_a_name_is_in_the_table():
    named = [each for each in vars(endpoints).values() if isinstance(each, Endpoint)]
    assert {each.path for each in named} == {each.path for each in ENDPOINTS}
    assert len({(each.method, each.path) for each in ENDPOINTS}) == len(ENDPOINTS)


async def test_every_call_and_every_event_of_the_contract_is_known_to_both_sides(
    controller, agents, witness, followed, until
):
    await until(lambda: both_online(controller))
    await run_alone(controller)
    await run_together(controller, witness)
    await run_as_gang(controller)
    await cancel_one(controller)
    await give_orders(controller, witness, until)
    agent, task = agents[1]
    agent.leave(Departure.SIGNAL)
    assert await asyncio.wait_for(task, 120) is Departure.SIGNAL
    assert witness.wrong == []
    assert witness.succeeded == {endpoint.path for endpoint in ENDPOINTS}
    assert witness.streamed == followed == set(STREAM_EVENTS)


async def both_online(controller) -> bool:
    return [each["state"] for each in await controller.workers()] == ["online"] * 2


async def run_alone(controller) -> None:
    """A job with files, one of which is sent in parts."""
    await controller.put("/v1/secrets/hub", {"value": "hf_of_the_contract"})
    script = (
        "cd $ST_RUN_DIR/outputs; echo small > a; head -c 100000 /dev/zero > b;"
        " test $HF_TOKEN = hf_of_the_contract; echo done"
    )
    wanted = {"name": "files", "command": {"run": script}, "secrets": {"HF_TOKEN": "hub"}}
    job = await controller.post("/v1/jobs", wanted)
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert done["state"] == "succeeded", done
    stored = await controller.get(f"/v1/jobs/{job['id']}/artifacts")
    assert {"a", "b"} <= {each["path"].rpartition("/")[2] for each in stored["items"]}


async def run_together(controller, witness) -> None:
    """Jobs that are claimed and finished together, which they are when they come together."""
    wanted = {endpoints.CLAIMS.path, endpoints.FINISHES.path}
    jobs = [{"name": f"n{number}", "noop": {"seconds": 0}} for number in range(8)]
    for _ in range(20):
        batch = await controller.post("/v1/jobs:batch", {"jobs": jobs})
        for job in batch["jobs"]:
            await controller.job_in(job["id"], "succeeded")
        if wanted <= witness.succeeded:
            return


async def run_as_gang(controller) -> None:
    """A job on two hosts, which have to meet."""
    wanted = {"name": "gang", "command": {"run": "true"}, "resources": {"nodes": 2}}
    job = await controller.post("/v1/jobs", wanted)
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert done["state"] == "succeeded", done


async def cancel_one(controller) -> None:
    job = await controller.post("/v1/jobs", {"name": "long", "command": {"run": "sleep 600"}})
    await controller.job_in(job["id"], "running")
    await controller.post(f"/v1/jobs/{job['id']}/cancel")
    await controller.job_in(job["id"], "cancelled")


async def give_orders(controller, witness, until) -> None:
    """Everything that an operator may order of a worker that stays."""
    (one,) = [each for each in await controller.workers() if each["name"] == "one"]
    for order in ("cordon", "activate", "rotate", "collect-garbage"):
        await controller.post(f"/v1/workers/{one['id']}/{order}")

    async def has_obeyed():
        shown = await controller.get(f"/v1/workers/{one['id']}")
        return not shown["rotation_ordered"] and endpoints.GARBAGE.path in witness.succeeded

    await until(has_obeyed)
