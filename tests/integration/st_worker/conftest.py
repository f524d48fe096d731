"""The real agent's parts against the real controller, over real sockets, in one event loop."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from served import Served, served

from st_controller.settings import Settings
from st_shared.protocol.worker import RegisterRequest
from st_worker.agent import Agent, Departure
from st_worker.client import Controller
from st_worker.folder import StateFolder
from st_worker.serve import describe
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(sqlite_template: Path, valkey_url: str, tmp_path: Path) -> Settings:
    """As everywhere, but on SQLite alone and with times that a test can wait for."""
    path = tmp_path / "controller.db"
    shutil.copy(sqlite_template, path)
    return Settings(
        data_dir=tmp_path / "controller",
        database_url=f"sqlite:///{path}",
        redis_url=valkey_url,
        secret_key="0123456789abcdef0123456789abcdef",
        heartbeat_seconds=0.1,
        allow_command_jobs=True,
    )


@pytest.fixture
async def controller(settings: Settings) -> AsyncIterator[Served]:
    async with served(settings) as running:
        yield running


@pytest.fixture
def agent_settings() -> AgentSettings:
    return AgentSettings(
        poll_seconds=0.02,
        first_backoff_seconds=0.01,
        most_backoff_seconds=0.1,
        stream_silence_seconds=120,
        joint_timeout_seconds=20,
        claim_patience_seconds=120,
        sample_seconds=60,
        first_sample_seconds=60,
        cancel_grace_seconds=0.5,
        preempt_grace_seconds=120,
        shutdown_grace_seconds=120,
        report_seconds=60,
    )


@pytest.fixture
def state_folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


@pytest.fixture
def description(state_folder: StateFolder) -> RegisterRequest:
    return describe(state_folder, "tester", 2, {"rack": "7"}, False)


class Hands:
    """An agent that runs as a task of the test."""

    def __init__(self, agent: Agent, controller: Controller, task: "asyncio.Task[Departure]"):
        self.agent, self.controller, self.task = agent, controller, task

    async def left(self, seconds: float = 120) -> Departure:
        return await asyncio.wait_for(self.task, seconds)


StartAgent = Callable[..., Awaitable[Hands]]


@pytest.fixture
async def start_agent(
    controller: Served, agent_settings: AgentSettings, state_folder: StateFolder
) -> AsyncIterator[StartAgent]:
    """Starts agents that join with a token of their own; none outlives the test."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            url: str | None = None,
            settings: AgentSettings = agent_settings,
            folder: StateFolder = state_folder,
            **kind: bool,
        ) -> Hands:
            address = url or controller.url
            calls, transfer = Controller(address, settings), Transfer(address, settings)
            stack.push_async_callback(calls.close)
            stack.push_async_callback(transfer.close)
            described = describe(folder, "tester", 2, {"rack": "7"}, False)
            described = described.model_copy(update=kind)
            agent = Agent(folder, calls, transfer, described, settings)
            token = None if folder.credential.exists() else await controller.join_token()
            hands = Hands(agent, calls, asyncio.create_task(agent.run(token)))
            stack.push_async_callback(_end, hands)
            return hands

        yield start


async def _end(hands: Hands) -> None:
    if not hands.task.done():
        hands.agent.leave(Departure.REFUSED)
        await asyncio.wait({hands.task}, timeout=120)
    hands.task.cancel()
    await asyncio.gather(hands.task, return_exceptions=True)


@pytest.fixture
def until(controller: Served) -> Callable[..., Awaitable[None]]:
    """Waits until a condition holds; a coroutine function is asked again and again."""

    async def wait(condition: Callable[[], Awaitable[bool]], seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    return wait
