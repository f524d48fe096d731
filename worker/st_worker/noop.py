"""A job that does nothing: time passes inside the agent, without a process."""

import asyncio
from contextlib import AsyncExitStack

from st_shared.protocol.states import AttemptState, Outcome
from st_worker.execution import Tell
from st_worker.orders import Orders
from st_worker.outcome import ending_by_order
from st_worker.record import Ending, KeptRecord
from st_worker.workplace import Workplace


class Noop:
    """Holds the slots of one attempt until its seconds are over.

    They count from the claim, so an agent that takes it over needs to know nothing else.
    """

    def __init__(self, place: Workplace, record: KeptRecord, orders: Orders, tell: Tell) -> None:
        self._place, self._record = place, record
        self._orders, self._tell = orders, tell
        self.used_seconds: float | None = None
        """Once it is over, for how long it had its slots."""

    @property
    def used_so_far(self) -> float | None:
        """While it goes on: for how long it has had its slots; none: nobody knows."""
        return self._record().elapsed

    async def run(self, slots: AsyncExitStack) -> Ending:
        """How it ended; ``slots`` gets hold of the attempt's slots."""
        loop = asyncio.get_running_loop()
        left = self._record().time_left(self._place.clock())
        limit = loop.call_later(left, self._orders.give, "time_limit")
        idling = asyncio.create_task(self._idle(slots))
        stopping = asyncio.create_task(self._orders.wait())
        try:
            await asyncio.wait({idling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if cause := self._orders.cause:
                return ending_by_order(cause)
            idling.result()
            return Ending(outcome=Outcome.SUCCEEDED)
        finally:
            self.used_seconds = self._record().elapsed
            limit.cancel()
            for task in (idling, stopping):
                task.cancel()
            await asyncio.gather(idling, stopping, return_exceptions=True)

    async def end_processes(self) -> None:
        """There are none."""

    async def _idle(self, slots: AsyncExitStack) -> None:
        record = self._record()
        await slots.enter_async_context(self._place.slots.hold(record.claim.slots))
        left = record.until(record.noop_seconds, self._place.clock())
        if left:  # what is over at once is told in one call, its finish
            self._tell(AttemptState.RUNNING)
        await asyncio.sleep(left)
