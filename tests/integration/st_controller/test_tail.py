"""One reader for all streams of a process."""

import asyncio
import json
from contextlib import aclosing, asynccontextmanager

import pytest
from sqlalchemy import update

from st_controller.events import tail as tail_module
from st_controller.events import topic_stream
from st_controller.events.hub import TAIL
from st_controller.events.tail import Tail
from st_controller.events.topic_stream import follow_topics
from st_controller.services import outbox
from st_controller.store.schema import EventOrder
from st_shared.protocol import sse
from st_shared.protocol.sse import EventReader

SECONDS = 120


@pytest.fixture(autouse=True)
def _no_repairs(monkeypatch):
    """Wake-ups must arrive: what is only found by looking again comes too late."""
    for module in (topic_stream, tail_module):
        monkeypatch.setattr(module, "REPAIR_SECONDS", 3600.0)
    monkeypatch.setattr(topic_stream, "PING_SECONDS", 3600.0)


def emit(steps, *numbers, topic="t"):
    with steps.db.write() as tx:
        for number in numbers:
            tx.emit(topic, "k", {"n": number})


def place_here(steps, *numbers, topic="t"):
    emit(steps, *numbers, topic=topic)
    steps.relay()


def place_afar(steps, *numbers, topic="t"):
    """As another process does: nothing of it reaches this one's memory."""
    deliver, notify = steps.db.deliver, steps.db.notify
    steps.db.deliver, steps.db.notify = (lambda _events: None), (lambda _topics: None)
    place_here(steps, *numbers, topic=topic)
    steps.db.deliver, steps.db.notify = deliver, notify


@asynccontextmanager
async def tailed(steps):
    """The reader is at work."""
    platform = steps.platform
    platform.hub.attach(asyncio.get_running_loop())
    task = asyncio.create_task(Tail(platform).run())
    async with asyncio.timeout(SECONDS):
        while not (platform.feed.is_tailed and platform.hub._bells.get(TAIL)):  # noqa: ASYNC110
            await asyncio.sleep(0)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not platform.feed.is_tailed


@pytest.fixture(autouse=True)
def _delivered(steps):
    platform = steps.platform

    def deliver(events):
        if not platform.feed.take(events):
            platform.hub.ring_here(frozenset({TAIL}))

    steps.db.deliver = deliver


def opened(steps, last_id=None, **options):
    return follow_topics(
        steps.platform, ["t"], last_id, opening=lambda _: ("sync", "{}"), **options
    )


async def take(stream, count):
    frames, events = b"", []
    async with asyncio.timeout(SECONDS):
        while len(events) < count:
            frames += await anext(stream)
            events = list(EventReader().read(frames.decode().split("\n")))
    return events


def told(events):
    return [json.loads(event.data)["n"] for event in events if event.event == "k"]


def run(story):
    return asyncio.run(story())


def test_what_this_process_places_reaches_a_stream_without_the_database(steps, monkeypatch):
    async def story():
        async with tailed(steps), aclosing(opened(steps)) as stream:
            await take(stream, 1)
            monkeypatch.setattr(outbox, "events_after", None)
            monkeypatch.setattr(outbox, "all_after", None)
            for number in (1, 2, 3):
                await asyncio.to_thread(place_here, steps, number)
                await asyncio.to_thread(place_here, steps, -number, topic="other")
            return told(await take(stream, 3))

    assert run(story) == [1, 2, 3]


def test_what_follows_a_gap_that_a_crash_left_is_told(steps):
    async def story():
        async with tailed(steps), aclosing(opened(steps)) as stream:
            await take(stream, 1)
            await asyncio.to_thread(place_here, steps, 1)
            with steps.db.write() as tx:
                tx.session.execute(update(EventOrder).values(last_position=1_000_000))
            await asyncio.to_thread(place_here, steps, 2)
            await asyncio.to_thread(place_here, steps, 3)
            return told(await take(stream, 3))

    assert run(story) == [1, 2, 3]


def test_what_another_process_placed_is_read_once_for_all_streams(steps, monkeypatch):
    reads = []
    read = outbox.all_after

    def counted(*arguments):
        reads.append(arguments)
        return read(*arguments)

    async def story():
        async with tailed(steps):
            streams = [opened(steps) for _ in range(20)]
            for stream in streams:
                await take(stream, 1)
            monkeypatch.setattr(outbox, "events_after", None)
            monkeypatch.setattr(outbox, "all_after", counted)
            await asyncio.to_thread(place_afar, steps, 1, 2)
            steps.platform.hub.ring(frozenset({"t"}))
            found = [told(await take(stream, 2)) for stream in streams]
            for stream in streams:
                await stream.aclose()
            return found

    assert run(story) == [[1, 2]] * 20
    assert len(reads) == 1


def test_a_gap_before_what_this_process_placed_is_filled_first(steps):
    async def story():
        async with tailed(steps), aclosing(opened(steps)) as stream:
            await take(stream, 1)
            await asyncio.to_thread(place_afar, steps, 1)  # and nobody tells of it
            await asyncio.to_thread(place_here, steps, 2)
            return told(await take(stream, 2))

    assert run(story) == [1, 2]


def test_what_nobody_tells_of_is_found_by_looking(steps, monkeypatch):
    monkeypatch.setattr(tail_module, "REPAIR_SECONDS", 0.01)

    async def story():
        async with tailed(steps), aclosing(opened(steps)) as stream:
            await take(stream, 1)
            await asyncio.to_thread(place_afar, steps, 1)
            return told(await take(stream, 1))

    assert run(story) == [1]


def test_a_stream_resumes_from_before_what_is_in_memory(steps):
    place_here(steps, 1, 2, 3)
    steps.platform.feed.__init__(most=2)
    for number in range(4, 4 + outbox.BATCH):
        emit(steps, number)
    steps.relay()

    async def story():
        async with tailed(steps), aclosing(opened(steps, "1")) as stream:
            return told(await take(stream, outbox.BATCH + 2))

    assert run(story) == list(range(2, outbox.BATCH + 4))


def test_events_for_some_eyes_only_are_told_from_memory(steps, monkeypatch):
    def tell(_session, event):
        return json.dumps(event.body) if event.body["n"] % 2 else None

    async def story():
        async with tailed(steps), aclosing(opened(steps, tell=tell)) as stream:
            await take(stream, 1)
            monkeypatch.setattr(outbox, "events_after", None)
            await asyncio.to_thread(place_here, steps, 1, 2, 3)
            return told(await take(stream, 2))

    assert run(story) == [1, 3]


def test_a_silent_stream_is_kept_open(steps, monkeypatch):
    monkeypatch.setattr(topic_stream, "PING_SECONDS", 0.02)

    async def story():
        async with tailed(steps), aclosing(opened(steps)) as stream:
            await take(stream, 1)
            async with asyncio.timeout(SECONDS):
                return [await anext(stream) for _ in range(3)]

    assert run(story) == [sse.PING] * 3
