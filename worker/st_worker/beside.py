"""Looks at a disk that goes on beside the heartbeats, however long the disk takes."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

Seen = TypeVar("Seen")


class Beside(Generic[Seen]):
    """A call that a disk may hold up for ever, made by one thread at a time.

    The thread is a daemon: one that hangs keeps no process from ending.
    """

    def __init__(self, name: str, call: Callable[[], Seen]) -> None:
        self._name, self._call = name, call
        self._running: asyncio.Future[Seen] | None = None
        self._last: Seen | None = None

    async def take(self, deadline: float) -> Seen | None:
        """What the call gave last, waiting ``deadline`` seconds at most; none: nothing yet.

        One that fails is logged, and what was known before stands.
        """
        running = self._running = self._running or self._start()
        await asyncio.wait({running}, timeout=deadline)
        if running.done() and running is self._running:  # else another caller has taken it
            self._running = None
            try:
                self._last = running.result()
            except OSError as error:
                log.warning("disk.failed", look=self._name, why=str(error))
        return self._last

    def _start(self) -> "asyncio.Future[Seen]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Seen] = loop.create_future()

        def settle(put: Callable[[], None]) -> None:
            if not future.done():
                put()

        def look() -> None:
            put: Callable[[], None]
            try:
                put = partial(future.set_result, self._call())
            except Exception as error:  # noqa: BLE001  (raised or logged by whoever waits)
                put = partial(future.set_exception, error)
            try:
                loop.call_soon_threadsafe(settle, put)
            except RuntimeError:
                log.debug("disk.late", look=self._name)  # the agent has ended meanwhile

        threading.Thread(target=look, name=self._name, daemon=True).start()
        return future
