"""Streams of workers: woken at news, kept open without, and ended with their credentials."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from listening import SECONDS, Listener

from st_controller.auth import secrets
from st_controller.errors import NotFound
from st_controller.events import standing as standing_module
from st_controller.events import worker_stream, worker_streams
from st_controller.events.hub import TAIL
from st_controller.events.tail import Tail
from st_controller.services import outbox, worker_credentials, worker_orders
from st_controller.store.database import DatabaseError
from st_shared.protocol.states import WorkerDesired


@pytest.fixture(autouse=True)
def _no_repairs(monkeypatch):
    """Wake-ups must arrive: what is only found by looking again comes too late."""
    for name in ("PING_SECONDS", "REPAIR_SECONDS"):
        monkeypatch.setattr(worker_streams, name, 3600.0)
    monkeypatch.setattr(worker_streams, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(standing_module, "RECHECK_SECONDS", 3600.0)


@pytest.fixture(autouse=True)
def _delivered(steps):
    feed, hub = steps.platform.feed, steps.platform.hub
    steps.db.deliver = lambda events: (
        None if feed.take(events) else hub.ring_here(frozenset({TAIL}))
    )


@asynccontextmanager
async def serving(steps, *, tail=True):
    """The services of a process that serves streams."""
    platform = steps.platform
    platform.hub.attach(asyncio.get_running_loop())
    services = [
        platform.standing.run,
        platform.streams.run,
        *([Tail(platform).run] if tail else []),
    ]
    tasks = [asyncio.create_task(run()) for run in services]
    async with asyncio.timeout(SECONDS):
        while len(platform.hub._inboxes) < 2 or platform.feed.is_tailed != tail:  # noqa: ASYNC110
            await asyncio.sleep(0)
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not platform.streams.open
    assert not platform.streams._of
    assert not platform.hub._inboxes
    assert platform.telemetry.streams.labels("worker")._value.get() == 0


@pytest.fixture
def listener(steps):
    """A listening worker, by its id."""
    return lambda worker_id, last_id=None: Listener(
        steps.platform, steps.caller(worker_id), last_id
    )


@pytest.fixture
def workers(steps):
    """Two workers that have joined."""
    found = [steps.join("one"), steps.join("two")]
    steps.relay()
    return found


def order(steps, worker_id, desired):
    steps.order(worker_id, desired)
    steps.relay()


def desired(events):
    return [json.loads(event.data)["desired"] for event in events]


def test_news_reach_the_worker_that_they_are_for_without_the_database(
    steps, workers, listener, monkeypatch
):
    one, two = workers

    async def story():
        async with serving(steps), listener(one) as first, listener(two) as second:
            assert desired([*await first.take(1), *await second.take(1)]) == ["active"] * 2
            await first.pinged(1)  # it has looked for what came meanwhile
            await second.pinged(1)
            monkeypatch.setattr(outbox, "events_after", None)
            for wanted in (WorkerDesired.DRAINING, WorkerDesired.CORDONED, WorkerDesired.ACTIVE):
                await asyncio.to_thread(order, steps, one, wanted)
            await asyncio.to_thread(order, steps, two, WorkerDesired.CORDONED)
            assert desired(await second.take(1)) == ["cordoned"]
            return desired(await first.take(3))

    assert asyncio.run(story()) == ["draining", "cordoned", "active"]


def test_an_order_to_all_is_told_to_each_once_in_its_place(steps, workers, listener, monkeypatch):
    monkeypatch.setattr(worker_streams, "TOGETHER", 1)
    one, two = workers

    def order_all():
        with steps.db.write() as tx:
            worker_orders.collect_garbage_everywhere(tx, "root")
        order(steps, one, WorkerDesired.DRAINING)

    async def story():
        async with serving(steps), listener(one) as first, listener(two) as second:
            (sync, *_), _ = await first.take(1), await second.take(1)
            await asyncio.to_thread(order_all)
            told = [event.event for event in await first.take(2)], await second.take(1)
            async with listener(one, sync.id) as again:  # replayed to who missed it
                assert [event.event for event in await again.take(2)] == told[0]
            await asyncio.to_thread(order, steps, two, WorkerDesired.CORDONED)
            assert desired(await second.take(1)) == ["cordoned"]
            return told

    first, (second,) = asyncio.run(story())
    assert (first, second.event) == (["collect_garbage", "desired"], "collect_garbage")


def test_a_worker_that_comes_back_is_told_what_it_missed_and_both_streams_go_on(
    steps, workers, listener
):
    one, _ = workers

    async def story():
        async with serving(steps), listener(one) as first:
            (sync,) = await first.take(1)
            await asyncio.to_thread(order, steps, one, WorkerDesired.DRAINING)
            async with listener(one, sync.id) as again:
                assert desired([*await first.take(1), *await again.take(1)]) == ["draining"] * 2
                await asyncio.to_thread(order, steps, one, WorkerDesired.ACTIVE)
                assert desired([*await first.take(1), *await again.take(1)]) == ["active"] * 2
            await asyncio.to_thread(order, steps, one, WorkerDesired.CORDONED)
            return desired(await first.take(1))

    assert asyncio.run(story()) == ["cordoned"]


def test_what_is_told_while_a_worker_does_not_read_waits_for_it(steps, workers, listener):
    one, two = workers

    async def story():
        async with serving(steps), listener(one) as slow, listener(two) as other:
            await slow.take(1)
            slow.reads.clear()
            for wanted in (WorkerDesired.DRAINING, WorkerDesired.ACTIVE):
                await asyncio.to_thread(order, steps, one, wanted)
            await asyncio.to_thread(order, steps, two, WorkerDesired.CORDONED)
            assert desired((await other.take(2))[1:]) == ["cordoned"]
            slow.reads.set()
            return desired(await slow.take(2))

    assert asyncio.run(story()) == ["draining", "active"]


def test_a_worker_that_goes_while_it_does_not_read_leaves_nothing_behind(steps, workers, listener):
    async def story():
        async with serving(steps):
            async with listener(workers[0]) as slow:
                await slow.take(1)
                slow.reads.clear()
                await asyncio.to_thread(order, steps, workers[0], WorkerDesired.DRAINING)
            running = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
            assert not any("WorkerStream" in name and "Streams" not in name for name in running)

    asyncio.run(story())


def test_silent_streams_are_kept_open(steps, workers, listener, monkeypatch):
    monkeypatch.setattr(worker_streams, "PING_SECONDS", 0.01)

    async def story():
        async with serving(steps), listener(workers[0]) as one, listener(workers[1]) as two:
            await one.pinged(3)
            await two.pinged(3)
            await asyncio.to_thread(order, steps, workers[1], WorkerDesired.DRAINING)
            return desired(await two.take(1))

    assert asyncio.run(story()) == ["draining"]


def test_where_nobody_tells_of_news_they_are_looked_for(steps, workers, listener, monkeypatch):
    monkeypatch.setattr(worker_streams, "REPAIR_SECONDS", 0.01)
    steps.db.notify = lambda _topics: None

    async def story():
        async with serving(steps, tail=False), listener(workers[0]) as one:
            await one.take(1)
            await asyncio.to_thread(order, steps, workers[0], WorkerDesired.DRAINING)
            return desired(await one.take(1))

    assert asyncio.run(story()) == ["draining"]


def test_an_error_breaks_the_stream_off_and_a_server_that_shuts_down_cancels_it(
    steps, workers, listener, monkeypatch
):
    async def story():
        async with serving(steps), listener(workers[0]) as one, listener(workers[1]) as two:
            await one.pinged(1)
            await two.pinged(1)
            two.answering.cancel()

            def away(*_):
                raise DatabaseError("away")

            monkeypatch.setattr(steps.platform.feed, "after", away)
            await asyncio.to_thread(order, steps, workers[0], WorkerDesired.DRAINING)
            return await asyncio.gather(one.answering, two.answering, return_exceptions=True)

    first, second = asyncio.run(story())
    assert isinstance(first, DatabaseError)
    assert isinstance(second, asyncio.CancelledError)


def test_nothing_is_answered_to_a_worker_that_was_deleted_meanwhile(steps, workers, listener):
    with steps.db.write() as tx:
        worker_credentials.get_worker(tx.session, workers[0]).deleted_at = tx.now

    async def story():
        async with serving(steps), listener(workers[0]) as one:
            with pytest.raises(NotFound):
                await one.answering
            return one.messages

    assert asyncio.run(story()) == []


def test_the_stream_of_a_retired_worker_ends_at_once_and_no_other(steps, workers, listener):
    one, two = workers

    async def story():
        async with serving(steps), listener(one) as first, listener(two) as second:
            await first.take(1)
            await second.take(1)
            await asyncio.to_thread(order, steps, one, WorkerDesired.RETIRED)
            rest = await first.ended()
            await asyncio.to_thread(order, steps, two, WorkerDesired.DRAINING)
            assert desired(await second.take(1)) == ["draining"]
            return rest

    assert all(b"offer" not in frame for frame in asyncio.run(story()))


@pytest.mark.parametrize("ending", ["revoked", "rotated"])
def test_a_stream_ends_at_once_with_the_credential_that_opened_it(steps, workers, listener, ending):
    worker_id = workers[0]

    def end() -> None:
        with steps.db.write() as tx:
            if ending == "revoked":
                worker_credentials.revoke(tx, "root", worker_id)
                return
            fresh = secrets.digest(worker_credentials.issue(tx, worker_id))
            tx.session.flush()
            worker_credentials.take_into_force(tx, fresh)

    async def story():
        async with serving(steps):
            async with listener(worker_id) as stream:
                await stream.take(1)
                await asyncio.to_thread(end)
                rest = await stream.ended()
            if ending == "rotated":  # the new one opens another
                async with listener(worker_id) as stream:
                    (event,) = await stream.take(1)
                assert json.loads(event.data)["rotate"] is False
            return rest

    assert all(b"offer" not in frame for frame in asyncio.run(story()))


def test_a_credential_that_ends_while_its_stream_begins_ends_that(
    steps, workers, listener, monkeypatch
):
    begin = worker_stream.beginning

    def begin_late(*arguments):
        found = begin(*arguments)
        order(steps, workers[0], WorkerDesired.RETIRED)
        return found

    monkeypatch.setattr(worker_stream, "beginning", begin_late)
    monkeypatch.setattr(standing_module, "RECHECK_SECONDS", 0.01)

    async def story():
        async with serving(steps), listener(workers[0]) as stream:
            return await stream.ended()

    assert b"event: sync" in asyncio.run(story())[0]


def test_where_nobody_tells_that_a_worker_is_retired_its_stream_ends_all_the_same(
    steps, workers, listener, monkeypatch
):
    monkeypatch.setattr(standing_module, "RECHECK_SECONDS", 0.01)

    async def story():
        async with serving(steps), listener(workers[0]) as stream:
            await stream.take(1)
            steps.db.notify = lambda _topics: None
            await asyncio.to_thread(steps.order, workers[0], WorkerDesired.RETIRED)
            return await stream.ended()

    assert len(asyncio.run(story())) <= 2  # it has ended, though nobody told of it
