"""Streams: every event once and in order, from any place, until the end."""

import asyncio
import json
from contextlib import aclosing
from datetime import timedelta

import pytest
from controller_steps import log_line, metric_line, progress_line
from listening import Listener

from st_controller.api import events as events_api
from st_controller.domain.policy.roles import Role
from st_controller.events import job_stream, topic_stream
from st_controller.events.job_stream import JobPlace, follow_job
from st_controller.events.topic_stream import follow_topics
from st_controller.services import outbox, steering
from st_controller.services.drafts import Rules
from st_shared.protocol import sse
from st_shared.protocol.sse import EventReader, ServerSentEvent
from st_shared.protocol.states import FailureKind, Outcome, WorkerDesired

SECONDS = 120
"""More than any stream here takes; what waits for its wake-up in vain takes longer."""


@pytest.fixture(autouse=True)
def _no_repairs(monkeypatch):
    """Wake-ups must arrive: what is only found by looking again comes too late."""
    monkeypatch.setattr(job_stream, "REPAIR_SECONDS", 3600.0)
    monkeypatch.setattr(topic_stream, "REPAIR_SECONDS", 3600.0)


def parsed(frames: list[bytes]) -> list[ServerSentEvent]:
    return list(EventReader().read(b"".join(frames).decode().split("\n")))


async def take(stream, count: int) -> list[ServerSentEvent]:
    """The next events, comments aside."""
    frames: list[bytes] = []
    async with asyncio.timeout(SECONDS):
        while len(parsed(frames)) < count:
            frames.append(await anext(stream))
    return parsed(frames)


def events_of(steps, job_id: str, place: str | None = None) -> list[ServerSentEvent]:
    """All events of a job that is over, after ``place``."""

    async def read() -> list[bytes]:
        async with asyncio.timeout(SECONDS):
            stream = follow_job(steps.platform, job_id, JobPlace.parse(place))
            return [frame async for frame in stream]

    return parsed(asyncio.run(read()))


@pytest.fixture
def finished(steps) -> str:
    """A job that was tried twice and succeeded."""
    job_id, worker_id = steps.submit(), steps.join()
    first = steps.claimed(worker_id)
    steps.run(worker_id, first)
    steps.ship(worker_id, first, [log_line(1), metric_line(2)])
    steps.ship(worker_id, first, [progress_line(3), log_line(4)])
    steps.finish(worker_id, first, Outcome.PREEMPTED, last=4)
    second = steps.claimed(worker_id)
    steps.run(worker_id, second, epoch=2)
    steps.ship(worker_id, second, [log_line(1), log_line(2)], epoch=2)
    steps.finish(worker_id, second, epoch=2, last=2)
    return job_id


class TestJobStream:
    def test_all_states_and_lines_are_told_once_and_the_stream_ends(self, steps, finished):
        events = events_of(steps, finished)
        lines = [json.loads(event.data) for event in events if event.event != "state"]
        assert [(line["attempt"], line["seq"]) for line in lines] == [
            (1, 1),
            (1, 2),
            (1, 3),
            (1, 4),
            (2, 1),
            (2, 2),
        ]
        states = [json.loads(event.data)["state"] for event in events if event.event == "state"]
        assert states == [
            "queued",
            "assigned",
            "running",
            "queued",
            "assigned",
            "running",
            "succeeded",
        ]
        assert json.loads(events[-1].data)["state"] == "succeeded"
        assert len({event.id for event in events}) == len(events)

    def test_from_any_place_the_rest_is_told_and_nothing_else(self, steps, finished, monkeypatch):
        whole = events_of(steps, finished)
        for page in (500, 2):
            monkeypatch.setattr(job_stream, "PAGE", page)
            assert events_of(steps, finished) == whole
            for place, event in enumerate(whole, start=1):
                assert events_of(steps, finished, event.id) == whole[place:]

    @pytest.mark.parametrize("place", ["", "x", "1.2", "1.2.-3", f"1.1.{10**12}", "1.2.3.4"])
    def test_a_place_that_is_not_ours_is_the_beginning(self, place):
        assert JobPlace.parse(place) == JobPlace()

    def test_states_stand_where_they_belong_in_time(self, steps):
        job_id, worker_id = steps.submit(), steps.join()
        attempt_id = steps.claimed(worker_id)
        steps.run(worker_id, attempt_id)
        steps.clock.advance(1)
        lines = [{**log_line(seq), "at": steps.clock().isoformat()} for seq in (1, 2)]
        steps.ship(worker_id, attempt_id, lines)
        fast = {**log_line(3), "at": (steps.clock() + timedelta(hours=1)).isoformat()}
        steps.ship(worker_id, attempt_id, [fast])
        steps.finish(worker_id, attempt_id, last=3)
        kinds = [event.event for event in events_of(steps, job_id)]
        assert kinds == ["state"] * 3 + ["log"] * 3 + ["state"]

    def test_a_retried_job_is_told_in_the_order_of_time_to_its_last_end(self, steps):
        job_id, worker_id = steps.submit(), steps.join()
        for epoch, outcome in ((1, Outcome.FAILED), (2, Outcome.SUCCEEDED)):
            steps.clock.advance(1)
            attempt_id = steps.claimed(worker_id)
            steps.run(worker_id, attempt_id, epoch=epoch)
            lines = [{**log_line(seq), "at": steps.clock().isoformat()} for seq in (1, 2)]
            steps.ship(worker_id, attempt_id, lines, epoch=epoch)
            steps.clock.advance(1)
            failure = FailureKind.BAD_DATA if outcome is Outcome.FAILED else None
            steps.finish(worker_id, attempt_id, outcome, epoch=epoch, last=2, failure=failure)
            if outcome is Outcome.FAILED:
                with steps.db.write() as tx:
                    steering.retry(tx, steps.admin, job_id, Rules())
        events = events_of(steps, job_id)
        told = [
            json.loads(event.data).get("state") or json.loads(event.data)["attempt"]
            for event in events
        ]
        assert told == [
            *("queued", "assigned", "running", 1, 1, "failed"),
            *("queued", "assigned", "running", 2, 2, "succeeded"),
        ]
        for place, event in enumerate(events, start=1):
            assert events_of(steps, job_id, event.id) == events[place:]

    def test_news_arrive_while_a_job_runs(self, steps):
        job_id, worker_id = steps.submit(), steps.join()
        attempt_id = steps.claimed(worker_id)

        async def follow() -> None:
            steps.platform.hub.attach(asyncio.get_running_loop())
            async with aclosing(follow_job(steps.platform, job_id, JobPlace())) as stream:
                assert [event.event for event in await take(stream, 2)] == ["state", "state"]
                for seq in (1, 2):
                    told = asyncio.create_task(take(stream, 1))
                    await asyncio.to_thread(steps.ship, worker_id, attempt_id, [log_line(seq)])
                    (event,) = await told
                    assert (event.event, json.loads(event.data)["seq"]) == ("log", seq)
                told = asyncio.create_task(take(stream, 2))
                await asyncio.to_thread(steps.finish, worker_id, attempt_id, last=2)
                states = [json.loads(event.data)["state"] for event in await told]
                assert states == ["running", "succeeded"]
                with pytest.raises(StopAsyncIteration):
                    await anext(stream)

        asyncio.run(follow())

    def test_a_wake_up_that_was_missed_costs_time_and_no_event(self, steps, monkeypatch):
        monkeypatch.setattr(job_stream, "REPAIR_SECONDS", 0.01)
        job_id = steps.submit()

        async def follow() -> None:
            stream = follow_job(steps.platform, job_id, JobPlace())
            async with aclosing(stream):
                await take(stream, 1)
                told = asyncio.create_task(take(stream, 1))
                await asyncio.to_thread(steps.cancel, job_id)  # the hub is deaf
                assert json.loads((await told)[0].data)["state"] == "cancelled"

        asyncio.run(follow())

    def test_a_job_that_ends_while_it_is_read_loses_no_line(self, steps, monkeypatch):
        job_id, worker_id = steps.submit(), steps.join()
        attempt_id = steps.claimed(worker_id)
        read = job_stream.following
        late = [log_line(1), log_line(2)]

        def read_and_be_overtaken(session, *arguments, **options):
            pieces = read(session, *arguments, **options)
            if late:
                steps.ship(worker_id, attempt_id, late)
                late.clear()
                steps.finish(worker_id, attempt_id, last=2)
            return pieces

        monkeypatch.setattr(job_stream, "following", read_and_be_overtaken)
        events = events_of(steps, job_id)
        logs = [json.loads(event.data)["seq"] for event in events if event.event == "log"]
        assert logs == [1, 2]
        assert json.loads(events[-1].data)["state"] == "succeeded"

    def test_an_idle_stream_is_kept_open_and_leaves_nothing_behind(self, steps, monkeypatch):
        monkeypatch.setattr(job_stream, "REPAIR_SECONDS", 0.01)
        monkeypatch.setattr(job_stream, "PING_SECONDS", 0.02)
        job_id = steps.submit()

        async def follow() -> None:
            async with aclosing(follow_job(steps.platform, job_id, JobPlace())) as stream:
                await take(stream, 1)
                async with asyncio.timeout(SECONDS):
                    assert await anext(stream) == sse.PING
                assert steps.platform.hub._bells

        asyncio.run(follow())
        assert not steps.platform.hub._bells


def emit(steps, *numbers: int, topic="t", **fields) -> None:
    with steps.db.write() as tx:
        for number in numbers:
            tx.emit(topic, "k", {"n": number, **fields})


def opened(steps, last_id=None, **options):
    return follow_topics(
        steps.platform, ["t"], last_id, opening=lambda _: ("sync", '{"now": true}'), **options
    )


def read_topic(steps, last_id, count: int) -> list[ServerSentEvent]:
    async def read() -> list[ServerSentEvent]:
        async with aclosing(opened(steps, last_id)) as stream:
            return await take(stream, count)

    return asyncio.run(read())


def told(events: list[ServerSentEvent]) -> list[int]:
    return [json.loads(event.data)["n"] for event in events]


class TestTopicStream:
    def test_it_begins_with_all_that_counts_now(self, steps):
        emit(steps, 1, 2)
        steps.relay()
        (first,) = read_topic(steps, None, 1)
        assert (first.event, first.data, first.id) == ("sync", '{"now": true}', "2")
        emit(steps, 3)
        steps.relay()
        (event,) = read_topic(steps, first.id, 1)
        assert (event.event, json.loads(event.data), event.id) == ("k", {"n": 3}, "3")

    def test_after_any_place_exactly_the_missed_events_follow(self, steps):
        for number in range(1, 9):
            emit(steps, number, topic="t" if number % 2 else "other")
        steps.relay()
        for place in range(8):
            missed = [number for number in (1, 3, 5, 7) if number > place]
            assert told(read_topic(steps, str(place), len(missed))) == missed

    @pytest.mark.parametrize("last_id", ["0", "1", "99", "x", "-1", "9" * 40])
    def test_a_place_that_cannot_be_resumed_from_begins_anew(self, steps, last_id):
        emit(steps, 1, 2, 3)
        steps.relay()
        steps.clock.advance(60)
        emit(steps, 4)
        steps.relay()
        with steps.db.write() as tx:
            outbox.prune(tx, tx.now)
        (first,) = read_topic(steps, last_id, 1)
        assert (first.event, first.id) == ("sync", "4")

    def test_news_arrive_when_they_are_placed(self, steps):
        async def follow() -> None:
            steps.platform.hub.attach(asyncio.get_running_loop())
            async with aclosing(opened(steps)) as stream:
                await take(stream, 1)
                for number in (1, 2):
                    waiting = asyncio.create_task(take(stream, 1))
                    await asyncio.to_thread(emit, steps, number)
                    await asyncio.to_thread(steps.relay)
                    assert told(await waiting) == [number]
            assert not steps.platform.hub._bells

        asyncio.run(follow())

    def test_events_for_other_eyes_hold_nobody_up(self, steps):
        emit(steps, 0)
        steps.relay()
        emit(steps, *range(1, outbox.BATCH + 2), secret=True)
        emit(steps, 1000, secret=False)
        steps.relay()

        def tell(_session, event):
            return None if event.body["secret"] else json.dumps(event.body)

        async def follow() -> list[int]:
            async with aclosing(opened(steps, "1", tell=tell)) as stream:
                return told(await take(stream, 1))

        assert asyncio.run(follow()) == [1000]


QUIET = {"rotate": False, "collect_garbage": False}


class TestRoutes:
    def test_a_worker_is_told_of_offers_stops_and_orders_in_order(self, steps):
        worker_id = steps.join()
        steps.relay()

        async def follow(last_id, count):
            async with Listener(steps.platform, steps.caller(worker_id), last_id) as listener:
                return await listener.take(count)

        (first,) = asyncio.run(follow(None, 1))
        assert (first.event, json.loads(first.data)) == (
            "sync",
            {"desired": "active", "offers": [], "stops": [], **QUIET},
        )
        job_id = steps.submit()
        attempt_id = steps.claimed(worker_id)
        steps.cancel(job_id)
        steps.order(worker_id, WorkerDesired.DRAINING)
        steps.relay()
        events = asyncio.run(follow(first.id, 3))
        assert [event.event for event in events] == ["offer", "stop", "desired"]
        assert json.loads(events[0].data)["attempt_id"] == attempt_id
        assert json.loads(events[1].data) == {"attempt_id": attempt_id, "reason": "cancel"}
        (sync,) = asyncio.run(follow(None, 1))
        assert json.loads(sync.data) == {
            "desired": "draining",
            "offers": [],
            "stops": [{"attempt_id": attempt_id, "reason": "cancel"}],
            **QUIET,
        }

    def test_people_are_told_of_the_jobs_that_they_may_see(self, steps):
        ann, lead = steps.user("ann", Role.RESEARCHER), steps.user("lea", Role.LEAD)

        async def follow(actor, last_id, count):
            response = events_api.follow(steps.platform, actor, last_id)
            async with aclosing(response.body_iterator) as stream:
                return await take(stream, count)

        (ready,) = asyncio.run(follow(ann, None, 1))
        assert ready.event == "ready"
        mine, other = steps.submit("mine", actor=ann), steps.submit("other")
        last = steps.submit("last", actor=ann)
        steps.relay()
        seen = asyncio.run(follow(ann, ready.id, 2))
        assert [json.loads(event.data)["id"] for event in seen] == [mine, last]
        assert {event.event for event in seen} == {"job"}
        seen = asyncio.run(follow(lead, ready.id, 3))
        assert [json.loads(event.data)["id"] for event in seen] == [mine, other, last]
