"""Calls that are made together, and what one of them does to the others."""

import asyncio

import pytest

from st_worker.errors import TemporaryTrouble
from st_worker.together import NotAnswered, Together

pytestmark = pytest.mark.anyio


class Calls:
    """Answers a request with its negative, as far as it is not told otherwise."""

    def __init__(self, most: int = 3) -> None:
        self.made: list[list[int]] = []
        self.alone: list[int] = []
        self.errors: dict[int, Exception] = {}
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.together: Together[int, int] = Together(self._once, self._alone, most)

    async def _once(self, asks):
        self.made.append(list(asks))
        self.begun.set()
        await self.gate.wait()
        if "call" in self.errors:
            raise self.errors["call"]
        return [self.errors.get(ask, -ask) for ask in asks]

    async def _alone(self, ask):
        self.alone.append(ask)
        return -ask

    async def do(self, *asks):
        tasks = [asyncio.create_task(self.together.do(ask)) for ask in asks]
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_those_that_come_at_once_go_in_one_call_and_never_too_many():
    calls = Calls(most=3)
    assert await calls.do(1, 2, 3, 4, 5) == [-1, -2, -3, -4, -5]
    assert calls.made == [[1, 2, 3], [4, 5]]


async def test_those_that_come_while_a_call_is_under_way_go_in_the_next():
    calls = Calls()
    calls.gate.clear()
    first = asyncio.create_task(calls.do(1))
    await calls.begun.wait()
    second = asyncio.create_task(calls.do(2, 3))
    await asyncio.sleep(0)
    calls.gate.set()
    assert [*await first, *await second] == [-1, -2, -3]
    assert calls.made == [[1], [2, 3]]


async def test_an_error_belongs_to_its_own_request():
    calls = Calls()
    calls.errors[2] = TemporaryTrouble("why")
    one, two, three = await calls.do(1, 2, 3)
    assert (one, three) == (-1, -3)
    assert isinstance(two, TemporaryTrouble)


async def test_where_the_call_fails_each_goes_on_alone():
    calls = Calls()
    calls.errors["call"] = TemporaryTrouble("why")
    assert await calls.do(1, 2) == [-1, -2]
    assert calls.alone == [1, 2]


async def test_one_of_which_nothing_is_said_goes_on_alone():
    calls = Calls()
    calls.errors[2] = NotAnswered()
    assert await calls.do(1, 2, 3) == [-1, -2, -3]
    assert calls.alone == [2]


async def test_who_is_cancelled_harms_nobody():
    calls = Calls()
    calls.gate.clear()
    tasks = [asyncio.create_task(calls.together.do(ask)) for ask in (1, 2)]
    await calls.begun.wait()
    tasks[0].cancel()
    calls.gate.set()
    assert await tasks[1] == -2
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_closing_ends_what_waits():
    calls = Calls()
    calls.gate.clear()
    task = asyncio.create_task(calls.together.do(1))
    await calls.begun.wait()
    await calls.together.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    calls.gate.set()
    assert await calls.do(2) == [-2]  # a later request finds a new call


async def test_a_defect_of_the_call_is_raised_where_it_is_waited_for():
    calls = Calls()
    calls.errors["call"] = ValueError("a defect")
    found, other = await calls.do(1, 2)
    assert isinstance(found, ValueError)
    assert isinstance(other, ValueError)
    assert found is not other
    assert calls.alone == []
