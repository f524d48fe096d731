"""Requests answered together: every one once, in order, and each with its own error."""

import asyncio
from contextvars import ContextVar
from threading import Event
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from st_controller.errors import Unavailable
from st_controller.services import combining as combining_module
from st_controller.services.combining import MOST, Combining

pytestmark = [pytest.mark.timeout(300), pytest.mark.anyio]


class Asked(Exception):
    pass


class Work:
    """Doubles texts; the first request is held until ``go``, so that the others gather."""

    def __init__(self):
        self.parts, self.go = [], Event()
        self.begun = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.combining = Combining(self.together, self.alone, (Asked,))

    def together(self, asks):
        self.parts.append(list(asks))
        if "broken" in asks:
            raise RuntimeError("nobody knows what happened")
        if "bad" in asks:
            raise Asked
        return [ask * 2 for ask in asks]

    def alone(self, ask):
        if ask == "first":
            self.loop.call_soon_threadsafe(self.begun.set)
            assert self.go.wait(120)
        self.parts.append([ask])
        if ask in {"bad", "broken"}:
            raise Asked(ask)
        return ask * 2

    async def at_once(self, *asks):
        """Answers or errors of requests that all wait while the first one is worked on."""
        first = asyncio.create_task(self.combining.do("first"))
        await self.begun.wait()
        tasks = [asyncio.create_task(self.combining.do(ask)) for ask in asks]
        await asyncio.sleep(0)
        self.go.set()
        assert await first == "firstfirst"
        return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_those_who_wait_are_answered_together_and_in_order():
    work = Work()
    assert await work.at_once("a", "b", "c") == ["aa", "bb", "cc"]
    assert work.parts == [["first"], ["a", "b", "c"]]


async def test_one_alone_is_answered_alone():
    work = Work()
    assert await work.at_once("a") == ["aa"]
    assert work.parts == [["first"], ["a"]]


async def test_a_mistake_is_told_to_whoever_made_it():
    work = Work()
    good, bad, also_good = await work.at_once("a", "bad", "c")
    assert (good, also_good) == ("aa", "cc")
    assert isinstance(bad, Asked)
    assert work.parts == [["first"], ["a", "bad", "c"], ["a"], ["bad"], ["c"]]


async def test_after_other_errors_nothing_is_tried_again():
    work = Work()
    told = await work.at_once("a", "broken", "c")
    assert [str(error) for error in told] == ["nobody knows what happened"] * 3
    assert len({id(error) for error in told}) == 3  # each raises its own
    assert {type(error.__cause__) for error in told} == {RuntimeError}
    assert work.parts == [["first"], ["a", "broken", "c"]]
    assert await work.combining.do("later") == "laterlater"


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT 1", {}, ValueError("away"), connection_invalidated=True),
        Unavailable("full", code="later", hint="wait"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        ExceptionGroup("two", [ValueError(1), ValueError(2)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_the_error_each_is_told_all_of_it(error):
    def together(_asks):
        raise error

    combining = Combining(together, together, (Asked,), rest=0.01)
    await asyncio.gather(combining.do(0), return_exceptions=True)
    told = await asyncio.gather(*(combining.do(n) for n in (1, 2)), return_exceptions=True)
    assert [type(each) for each in told] == [type(error)] * 2
    assert told[0] is not told[1]
    assert all(each.args == error.args and vars(each) == vars(error) for each in told)


async def test_a_part_is_bounded():
    work = Work()
    asks = [f"{number:03}" for number in range(MOST + 5)]
    assert await work.at_once(*asks) == [ask * 2 for ask in asks]
    assert [len(part) for part in work.parts] == [1, MOST, 5]


def counting(monkeypatch, parts, sleep, **options):
    """Gives back what is asked, notes in ``parts`` how many came at once, rests by ``sleep``."""

    def together(asks):
        parts.append(len(asks))
        return list(asks)

    own = SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    monkeypatch.setattr(combining_module, "asyncio", own)
    return Combining(together, lambda ask: together([ask])[0], (Asked,), **options)


async def test_where_nobody_is_in_a_hurry_crowds_form(monkeypatch):
    parts, rested = [], asyncio.Event()

    async def rest(_seconds):
        await rested.wait()

    combining = counting(monkeypatch, parts, rest, rest=0.05)
    assert await combining.do(0) == 0
    tasks = []
    for ask in range(20):  # they come one by one, while it rests
        tasks.append(asyncio.create_task(combining.do(ask)))
        await asyncio.sleep(0)
    rested.set()
    assert await asyncio.gather(*tasks) == list(range(20))
    assert parts == [1, 20]


async def test_where_several_came_at_once_more_are_gathered(monkeypatch):
    parts, rests, rested, resting = [], [], asyncio.Event(), asyncio.Event()

    async def rest(seconds):
        if seconds:
            rests.append(seconds)
            resting.set()
            await rested.wait()

    combining = counting(monkeypatch, parts, rest, gather=1e-9)
    assert [await combining.do(ask) for ask in range(3)] == [0, 1, 2]
    assert rests == []  # whoever comes alone is served at once, and so is the next
    assert await asyncio.gather(combining.do(3), combining.do(4)) == [3, 4]
    await resting.wait()
    more = [asyncio.create_task(combining.do(ask)) for ask in (5, 6, 7)]
    await asyncio.sleep(0)
    rested.set()
    assert await asyncio.gather(*more) == [5, 6, 7]
    assert parts == [1, 1, 1, 2, 3]
    assert rests[0] == 1e-9  # no longer than the bound, however long it took


async def test_who_goes_away_harms_nobody():
    work = Work()
    first = asyncio.create_task(work.combining.do("first"))
    await work.begun.wait()
    tasks = [asyncio.create_task(work.combining.do(ask)) for ask in ("a", "b")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    work.go.set()
    assert [await first, await tasks[1]] == ["firstfirst", "bb"]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_under_load_nothing_is_lost_or_doubled():
    seen = []

    def together(asks):
        seen.extend(asks)
        return list(asks)

    combining = Combining(together, lambda ask: together([ask])[0], (Asked,))
    left = iter(range(3000))

    async def client():
        return [await combining.do(ask) for ask in left]

    answers = await asyncio.gather(*(client() for _ in range(16)))
    assert sorted(answer for each in answers for answer in each) == list(range(3000))
    assert sorted(seen) == list(range(3000))


async def test_a_wrong_number_of_answers_is_an_error_and_no_silence():
    def together(_asks):
        return []

    combining = Combining(together, together, (Asked,), rest=0.01)
    await asyncio.gather(combining.do(0), return_exceptions=True)
    found = await asyncio.gather(*(combining.do(n) for n in (1, 2)), return_exceptions=True)
    assert [type(error) for error in found] == [AssertionError] * 2


async def test_no_more_than_a_bounded_crowd_waits(monkeypatch):
    monkeypatch.setattr(combining_module, "MOST_WAITING", 2)
    work = Work()
    first = asyncio.create_task(work.combining.do("first"))
    await work.begun.wait()
    tasks = [asyncio.create_task(work.combining.do(ask)) for ask in ("a", "b", "c")]
    await asyncio.sleep(0)
    work.go.set()
    assert await first == "firstfirst"
    one, two, three = await asyncio.gather(*tasks, return_exceptions=True)
    assert (one, two) == ("aa", "bb")
    assert isinstance(three, Unavailable)


async def test_work_for_many_carries_the_context_of_none():
    mark = ContextVar("mark", default="none")
    seen = []

    def alone(ask):
        seen.append(mark.get())
        return ask

    combining = Combining(list, alone, (Asked,))
    mark.set("mine")
    await combining.do(1)
    assert seen == ["none"]
