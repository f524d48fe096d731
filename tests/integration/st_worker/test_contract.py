"""The real agent against the real controller: every endpoint and every event of the contract.

What is to be seen is read from ``ENDPOINTS``, ``STREAM_EVENTS``, ``WorkerDesired`` and the kinds of
``JournalEvent``: a call that the agent does not make, that the controller does not serve, or whose
body is not what the contract says, fails here, and so does an event that one side alone knows.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import pytest
from served import served
from shades import make_shades
from witness import Witness

from st_client import Client
from st_shared.objectstore import multipart
from st_shared.protocol import endpoints
from st_shared.protocol.endpoints import ENDPOINTS, STREAM_EVENTS, Endpoint, name_of
from st_shared.protocol.journal import JournalEvent
from st_shared.protocol.states import WorkerDesired
from st_shared.protocol.worker import DesiredChange, DrainWish, StopOrder, StopReason
from st_worker.agent import Agent, Departure
from st_worker.client import Controller
from st_worker.drain import drain
from st_worker.folder import StateFolder
from st_worker.serve import describe
from st_worker.transfer import Transfer

pytestmark = pytest.mark.anyio

KINDS = {event.model_fields["kind"].default for event in get_args(get_args(JournalEvent)[0])}
"""Of journal lines."""
TRAINER = Path(__file__).parents[2] / "faults" / "scripted_trainer.py"
REASONS = set(get_args(StopReason)) - {"stale"}
"""Why streams tell to stop; that a lease is void comes with the answer to a heartbeat alone."""
DESIRED = set(WorkerDesired) - {WorkerDesired.RETIRED}
"""What streams always tell; that of a retired worker may end before it does."""


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
async def controller(settings, witness):
    async with served(settings, wrap=witness.before) as running:
        yield running


@dataclass
class Followed:
    """What agents have followed."""

    events: set[str] = field(default_factory=set)
    desired: set[WorkerDesired] = field(default_factory=set)
    reasons: set[StopReason] = field(default_factory=set)


@pytest.fixture
def followed(monkeypatch) -> Followed:
    seen, follow = Followed(), Agent._follow

    def spy(agent, event):
        follow(agent, event)
        seen.events.add(name_of(event))
        if isinstance(event, DesiredChange):
            seen.desired.add(event.desired)
        if isinstance(event, StopOrder):
            seen.reasons.add(event.reason)

    monkeypatch.setattr(Agent, "_follow", spy)
    return seen


@pytest.fixture
def agent_settings(agent_settings, monkeypatch):
    """With a trainer that needs no model."""
    monkeypatch.setenv("FAULTS_PACE", "0.001")
    command = (sys.executable, str(TRAINER))
    return replace(agent_settings, trainer_command=command, preempt_grace_seconds=120)


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
    controller, agents, agent_settings, witness, followed, until, tmp_path
):
    await until(lambda: both_online(controller))
    await run_alone(controller)
    await run_together(controller, witness)
    await run_as_gang(controller)
    await push_dataset(controller, tmp_path)
    assert await shown_of_a_training(controller) == KINDS
    await preempt_and_cancel(controller, until)
    await give_orders(controller, witness, followed, until)
    await drain_from_its_host(controller, tmp_path / "one", agent_settings)
    await leave(controller, agents)
    assert witness.wrong == []
    assert witness.succeeded == {endpoint.path for endpoint in ENDPOINTS}
    assert witness.streamed == followed.events == set(STREAM_EVENTS)
    assert witness.journalled == KINDS
    assert followed.desired - {WorkerDesired.RETIRED} == DESIRED
    assert followed.reasons == REASONS


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


async def push_dataset(controller, tmp_path) -> None:
    key = controller.admin.headers["Authorization"].removeprefix("Bearer ")
    folder = make_shades(tmp_path / "shades")
    with Client(controller.url, key) as client:
        await asyncio.to_thread(client.push_dataset, "shades", folder)


def training(name, steps) -> dict[str, object]:
    config = {"image_size": 4, "width": 16, "depth": 1, "heads": 2}
    return {
        "name": name,
        "training": {
            "model": {"family": "pixel_dit", "config": config},
            "datasets": [{"name": "shades"}],
            "steps": steps,
            "log_every": 5,
            "checkpoint": {"every": 20},
        },
    }


async def shown_of_a_training(controller) -> set[str]:
    """Kinds of lines of a journal of which people are shown something."""
    job = await controller.post("/v1/jobs", training("short", 30))
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert done["state"] == "succeeded", done
    place = f"/v1/jobs/{job['id']}"
    stored = await controller.get(f"{place}/artifacts")
    shown = {
        "log": (await controller.get(f"{place}/logs"))["items"],
        "metric": (await controller.get(f"{place}/metrics"))["items"],
        "progress": done["progress"]["phase"] == "done",
        "checkpoint": done["checkpoint_step"] == 20,
        **{kind: [each for each in stored["items"] if each["kind"] == kind]
           for kind in ("sample", "output")},
    }  # fmt: skip
    return {kind for kind, found in shown.items() if found}


async def preempt_and_cancel(controller, until) -> None:
    """A training gives way to the drain of its host, goes on elsewhere and is cancelled there."""
    one, two = await workers(controller)
    await order(controller, two, "cordon")
    job = await controller.post("/v1/jobs", training("long", 1_000_000))
    await controller.job_in(job["id"], "running")
    await order(controller, two, "activate")
    await order(controller, one, "drain", {"grace_seconds": 0})

    async def is_elsewhere():
        return len(await attempts_of(controller, job)) > 1

    await until(is_elsewhere)
    first, *_, last = await attempts_of(controller, job)
    assert (first["outcome"], first["worker"], last["worker"]) == ("preempted", "one", "two")
    await controller.job_in(job["id"], "running")
    await controller.post(f"/v1/jobs/{job['id']}/cancel")
    await controller.job_in(job["id"], "cancelled")
    await order(controller, one, "activate")


async def attempts_of(controller, job):
    """First to last."""
    page = await controller.get(f"/v1/jobs/{job['id']}/attempts")
    return sorted(page["items"], key=lambda each: each["number"])


async def workers(controller):
    """Their ids, by name."""
    return [each["id"] for each in await controller.workers()]


async def order(controller, worker_id, name, body=None) -> None:
    await controller.post(f"/v1/workers/{worker_id}/{name}", body)


async def give_orders(controller, witness, followed, until) -> None:
    """The other orders; everything that was ordered so far has been told in the end."""
    one, _ = await workers(controller)
    for name in ("rotate", "collect-garbage"):
        await order(controller, one, name)

    async def has_obeyed():
        shown = await controller.get(f"/v1/workers/{one}")
        has_told = endpoints.GARBAGE.path in witness.succeeded
        is_told = (followed.desired, followed.reasons) == (DESIRED, REASONS)
        return has_told and is_told and not shown["rotation_ordered"]

    await until(has_obeyed)


async def drain_from_its_host(controller, state, agent_settings) -> None:
    known = await drain(StateFolder(state), DrainWish(), agent_settings)
    shown = await controller.get(f"/v1/workers/{known.worker_id}")
    assert (shown["desired"], shown["reason"]["code"]) == ("draining", "drained")
    assert "(asked for on its host)" in shown["reason"]["message"]


async def leave(controller, agents) -> None:
    """One is retired, the other signs off."""
    (_, retired), (agent, task) = agents
    one, _ = await workers(controller)
    await order(controller, one, "retire")
    departure = await asyncio.wait_for(retired, 120)
    assert departure in {Departure.RETIRED, Departure.REFUSED}
    agent.leave(Departure.SIGNAL)
    assert await asyncio.wait_for(task, 120) is Departure.SIGNAL
