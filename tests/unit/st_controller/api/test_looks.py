"""Who shows one secret at the same time shares one look into the database."""

import asyncio
from threading import Event
from types import SimpleNamespace

import pytest

from st_controller.api.dependencies import _holder
from st_controller.errors import Unavailable
from st_controller.services.known_credentials import KnownCredentials
from st_shared.clock import utc_now

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
PLATFORM = SimpleNamespace(db=SimpleNamespace(clock=utc_now))
HOLDER = SimpleNamespace(expires_at=None)


class Looks:
    """Counts looks, and answers none before it is let to."""

    def __init__(self, answer):
        self.known, self.count, self.may_answer = KnownCredentials(), 0, Event()
        self.began = asyncio.Event()
        self._answer, self._loop = answer, asyncio.get_running_loop()

    def __call__(self, _platform, _secret):
        self.count += 1
        self._loop.call_soon_threadsafe(self.began.set)
        assert self.may_answer.wait(120)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def asked(self, secret="s"):
        return asyncio.create_task(_holder(self.known, PLATFORM, self, secret))


async def test_many_share_a_look_also_where_the_first_has_gone():
    look = Looks(HOLDER)
    first = look.asked()
    await look.began.wait()
    others = [look.asked() for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    look.may_answer.set()
    assert await asyncio.gather(*others) == [HOLDER] * 5
    assert first.cancelled()
    assert (look.count, look.known.looks) == (1, {})
    assert await look.asked() is HOLDER
    assert look.count == 1  # it is known


async def test_who_asks_after_something_ended_believes_no_look_that_began_before():
    look = Looks(HOLDER)
    first = look.asked()
    await look.began.wait()
    look.known.forget()
    second, other = look.asked(), look.asked("another")
    await asyncio.sleep(0)
    look.may_answer.set()
    await asyncio.gather(first, second, other)
    assert look.count == 3


@pytest.mark.parametrize("answer", [None, Unavailable("away")])
async def test_what_is_not_found_is_looked_for_again(answer):
    look = Looks(answer)
    look.may_answer.set()
    for _ in range(2):
        told = await asyncio.gather(look.asked(), look.asked(), return_exceptions=True)
        assert told == [answer, answer]
    assert look.count == 2
