"""The scheduler's loop as it runs in the application, for stories of what wakes it."""

import asyncio

from st_controller.background import Background
from st_controller.dispatch.service import Dispatcher


class SchedulerLoop:
    """A dispatcher that runs as in the application, and a bell for the end of each round.

    It takes over from ``steps``; what it does by itself from time to time, which would hide a lost
    wake-up, is years away.
    """

    def __init__(self, steps) -> None:
        self._steps, self.queue = steps, steps.platform.queue
        self.dispatcher = Dispatcher(steps.platform, "ctl_loop")
        self._place, self._round_ended = self.dispatcher._rounds.place, asyncio.Event()
        self._rounds = 0

    def run(self, story) -> None:
        """Tell a story once the first round is over."""
        asyncio.run(self._told(story))

    async def until(self, condition) -> None:
        """Look after every round, until it is so."""
        async with asyncio.timeout(120):
            while True:
                self._round_ended.clear()
                if await asyncio.to_thread(condition):
                    return
                await self._round_ended.wait()

    async def _told(self, story) -> None:
        loop = asyncio.get_running_loop()
        self._steps.platform.hub.attach(loop)

        def place(*arguments):
            try:
                return self._place(*arguments)
            finally:
                self._rounds += 1
                loop.call_soon_threadsafe(self._round_ended.set)

        self.dispatcher._rounds.place = place
        background = Background()
        background.keep("dispatcher", self.dispatcher.run)
        try:
            await self.until(lambda: self.queue.is_led and self._rounds)
            await story()
        finally:
            await background.stop()
