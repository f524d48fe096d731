"""What is told to one worker: each event once and in order, until its credential ends."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from st_controller.events.topic_stream import beginning, news_after
from st_controller.platform import Platform
from st_controller.services import topics, workers
from st_controller.services.caller import WorkerCaller
from st_controller.store.database import ReadSession
from st_shared.protocol import sse

Write = Callable[[bytes], Awaitable[None]]
"""Sends bytes to the worker; waits while it does not read."""


class WorkerStream:
    """Sleeps until it is woken; then a task tells what there is, and ends.

    What a worker that does not read has not been told yet stays where it is read from: nothing is
    kept for it. ``end`` is called when the stream is over by itself: ``is_void``, or an ``error``.
    """

    __slots__ = (
        "_end",
        "_goes_on",
        "_place",
        "_platform",
        "_rang",
        "_telling",
        "_write",
        "caller",
        "error",
        "is_over",
        "is_void",
    )

    def __init__(
        self, platform: Platform, caller: WorkerCaller, write: Write, end: Callable[[], object]
    ) -> None:
        self._platform, self._write, self._end = platform, write, end
        self._place = 0
        self._goes_on = self._rang = False
        self._telling: asyncio.Task[None] | None = None
        self.caller = caller
        self.is_void = False
        """The credential has ended."""
        self.is_over = False
        """Nothing more is told."""
        self.error: Exception | None = None
        """Why it could not go on."""

    async def begin(self, last_id: str | None) -> list[bytes]:
        """Find the place to go on from; what is to be told before that.

        Raises:
            NotFound: there is no such worker.
        """

        def opening(session: ReadSession) -> tuple[str, str]:
            worker = workers.get_worker(session, self.caller.worker_id)
            return "sync", workers.sync(session, worker).model_dump_json()

        self._place, frames = await asyncio.to_thread(beginning, self._platform, last_id, opening)
        return frames

    def go_on(self) -> None:
        """What it begins with was told: tell the rest, now and whenever it is woken."""
        self._goes_on = True
        self.wake()

    def wake(self) -> None:
        """Tell what is new, or at least that the stream is still there; from the loop's thread."""
        self._rang = True
        if self._goes_on and self._telling is None and not self.is_over:
            # In a context of its own: whoever rings has nothing to do with it.
            loop = asyncio.get_running_loop()
            self._telling = loop.create_task(self._tell(), context=Context())

    async def close(self) -> None:
        """Tell nothing more; returns once nothing of it runs."""
        self.is_over = True
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])

    async def _tell(self) -> None:
        try:
            while self._rang and not self.is_void:
                self._rang = False
                await self._tell_news()
        except Exception as error:  # noqa: BLE001 - raised by whoever it ends
            self.error = error
        finally:
            self._telling = None
            if not self.is_over and (self.is_void or self.error):
                self.is_over = True
                self._end()

    async def _tell_news(self) -> None:
        followed = (topics.worker(self.caller.worker_id), topics.WORKERS)
        is_all = has_told = False
        while not is_all and not self.is_void:
            place, frames, is_all = await news_after(self._platform, followed, self._place)
            for frame in frames:
                await self._write(frame)
            self._place = place
            has_told |= bool(frames)
        if not has_told:
            await self._write(sse.PING)
