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
from contract_steps import (
    both_online,
    drain_from_its_host,
    give_orders,
    leave,
    preempt_and_cancel,
    push_dataset,
    run_alone,
    run_as_gang,
    run_together,
    shown_of_a_training,
)
from served import served
from witness import Witness

from st_shared.objectstore import multipart
from st_shared.protocol import endpoints
from st_shared.protocol.endpoints import ENDPOINTS, STREAM_EVENTS, Endpoint, name_of
from st_shared.protocol.journal import JournalEvent
from st_shared.protocol.states import WorkerDesired
from st_shared.protocol.worker import DesiredChange, StopOrder, StopReason
from st_worker.agent import Agent, Departure
from st_worker.client import Controller
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
    monkeypatch.setenv("FAULTS_PACE", "0.01")
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
    await give_orders(
        controller,
        until,
        lambda: (
            (followed.desired, followed.reasons) == (DESIRED, REASONS)
            and witness.streamed == followed.events == set(STREAM_EVENTS)  # not by beats alone
            and endpoints.GARBAGE.path in witness.succeeded
        ),
    )
    await drain_from_its_host(controller, tmp_path / "one", agent_settings)
    await leave(controller, agents)
    assert witness.wrong == []
    assert witness.succeeded == {endpoint.path for endpoint in ENDPOINTS}
    assert witness.streamed == followed.events == set(STREAM_EVENTS)
    assert witness.journalled == KINDS
    assert followed.desired - {WorkerDesired.RETIRED} == DESIRED
    assert followed.reasons == REASONS
