"""News between processes, over a real server."""

import asyncio
from contextlib import asynccontextmanager

from structlog.testing import capture_logs

from st_controller.background import Background
from st_controller.embedded.valkey import EmbeddedValkey, find_server
from st_controller.events.hub import Hub
from st_controller.events.redis_fanout import MOST_PENDING, RedisFanout

SOON = 100.0
NEWS = frozenset({"jobs"})


@asynccontextmanager
async def process(url):
    """A hub as a controller has it."""
    hub, background = Hub(), Background()
    hub.attach(asyncio.get_running_loop())
    fanout = RedisFanout(hub, url)
    hub.publish = fanout.publish
    background.keep("fan-out", fanout.run)
    try:
        yield hub, fanout
    finally:
        await background.stop()


async def connected(fanout, *, wanted=True):
    while fanout.is_connected is not wanted:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.005)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


def test_news_of_one_process_ring_in_the_other(valkey_url):
    async def story():
        async with process(valkey_url) as (here, f1), process(valkey_url) as (there, f2):
            await connected(f1)
            await connected(f2)
            with there.follow("jobs") as bell, there.follow("other") as quiet:
                here.notify(NEWS)
                assert await bell.heard(SOON)
                assert not await quiet.heard(0)

    run(story())


def test_a_process_hears_its_own_news_once(valkey_url):
    async def story():
        async with process(valkey_url) as (here, fanout), process(valkey_url) as (there, other):
            await connected(fanout)
            await connected(other)
            with here.follow("jobs") as own, there.follow("jobs") as far:
                here.notify(NEWS)
                assert await own.heard(SOON)
                assert await far.heard(SOON)
                there.notify(frozenset({"flush"}))
                with here.follow("flush") as flushed:
                    there.notify(frozenset({"flush"}))
                    assert await flushed.heard(SOON)
                assert not await own.heard(0)

    run(story())


def test_publishing_from_a_thread_before_there_is_redis_neither_waits_nor_is_lost(valkey_url):
    async def story():
        hub = Hub()
        fanout = RedisFanout(hub, valkey_url)
        await asyncio.to_thread(fanout.publish, NEWS)
        async with process(valkey_url) as (there, other):
            await connected(other)
            with there.follow("jobs") as bell:
                background = Background()
                background.keep("fan-out", fanout.run)
                assert await bell.heard(SOON)
                await background.stop()

    run(story())


def test_an_outage_is_logged_once_and_ends_by_itself(tmp_path):
    def outages():
        return ["Redis is away" in entry["event"] for entry in logs].count(True)

    async def story():
        valkey = EmbeddedValkey(tmp_path, find_server())
        async with process(valkey.url) as (here, f1), process(valkey.url) as (there, f2):
            while outages() < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await valkey.start()
            await connected(f1)
            await connected(f2)
            with there.follow("jobs") as bell:
                here.notify(NEWS)
                assert await bell.heard(SOON)
            await valkey.stop()
            await connected(f1, wanted=False)
            await connected(f2, wanted=False)
            here.notify(NEWS)

    with capture_logs() as logs:
        run(story())
    assert outages() == 4  # two processes, two outages


def test_a_long_outage_fills_no_memory(tmp_path):
    fanout = RedisFanout(Hub(), f"unix://{tmp_path}/nobody.sock")
    for number in range(MOST_PENDING + 100):
        fanout.publish(frozenset({f"job:{number}"}))
    assert len(fanout._pending) == MOST_PENDING
