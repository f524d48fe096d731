"""The stream of a worker through a proxy that cuts, stalls or buffers."""

import asyncio
from dataclasses import replace

import pytest
from middleman import between

from st_controller.events import worker_streams
from st_worker.client import Controller
from st_worker.joining import join
from st_worker.stream import Stream

pytestmark = pytest.mark.anyio


@pytest.fixture
async def middleman(controller):
    async with between(controller.url) as proxy:
        yield proxy


@pytest.fixture
def silence():
    """Seconds after which a stream that brings nothing is dead."""
    return 0.5


@pytest.fixture
async def followed(controller, middleman, agent_settings, state_folder, description, silence):
    """A stream through the middleman: its worker's id, and the events that it brought."""
    settings = replace(agent_settings, stream_silence_seconds=silence)
    calls = Controller(middleman.url, settings)
    reply = await join(calls, state_folder, description, await controller.join_token())
    taken: list[tuple[str, str]] = []
    stream = Stream(calls, settings, lambda event: taken.append((event.event, event.data)))
    task = asyncio.create_task(stream.run())
    yield reply.worker_id, taken
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await calls.close()


@pytest.fixture(autouse=True)
def _pings(monkeypatch):
    """Often enough that half a second of silence means something, on a machine that is not busy."""
    monkeypatch.setattr(worker_streams, "PING_SECONDS", 0.1)


def desired(taken) -> list[str]:
    return [data for event, data in taken if event == "desired"]


def orders(count: int) -> list[str]:
    return [
        f'{{"desired": "{("active", "cordoned")[number % 2]}"}}' for number in range(1, count + 1)
    ]


async def order(controller, worker_id: str, number: int) -> None:
    await controller.post(f"/v1/workers/{worker_id}/{('activate', 'cordon')[number % 2]}")


async def test_what_is_told_while_the_stream_is_cut_comes_once_and_in_order(
    controller, middleman, followed, until
):
    worker_id, taken = followed

    async def has(count):
        return len(desired(taken)) >= count

    await until(lambda: _true(taken))
    for number in range(1, 7):
        await order(controller, worker_id, number)
        if number % 2:
            middleman.cut()
    await until(lambda: has(6))
    assert desired(taken) == orders(6)
    assert [event for event, _ in taken].count("sync") == 1
    assert middleman.streams >= 2


async def test_a_stream_that_stalls_is_opened_anew_and_goes_on(
    controller, middleman, followed, until
):
    worker_id, taken = followed
    await until(lambda: _true(taken))
    middleman.stall()
    for number in (1, 2):
        await order(controller, worker_id, number)
    await until(lambda: _true(len(desired(taken)) == 2))
    assert desired(taken) == orders(2)
    assert middleman.streams >= 2


@pytest.mark.parametrize("silence", [120])
async def test_pings_come_on_a_stream_on_which_nothing_happens(middleman, followed, until):
    _, taken = followed
    await until(lambda: _true(taken))
    before = middleman.pieces
    await until(lambda: _true(middleman.pieces >= before + 3))
    assert middleman.streams == 1


async def test_behind_a_proxy_that_keeps_streams_jobs_run_by_the_heartbeats(
    controller, middleman, start_agent, agent_settings
):
    middleman.keeps_streams = True
    settings = replace(agent_settings, stream_silence_seconds=0.5)
    await start_agent(url=middleman.url, settings=settings)
    job = await controller.post("/v1/jobs", {"name": "n", "noop": {"seconds": 0}})
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert (done["state"], done["attempts"]) == ("succeeded", 1)


async def _true(found: object) -> bool:
    return bool(found)
