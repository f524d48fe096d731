"""All streams that workers hold to this process, and who wakes them.

There are thousands and nearly all are silent, so none has a task, a timer or a queue of its own.
"""

import asyncio
from collections.abc import Collection
from itertools import takewhile
from typing import Protocol

from prometheus_client import Gauge

from st_controller.events.feed import EventFeed
from st_controller.events.hub import Hub, Inbox
from st_controller.services import topics
from st_controller.services.caller import WorkerCaller

TICK_SECONDS = 0.1
"""Between two looks at who was silent for long: those of so short a time have their turn together,
and what else is to be done does not wait for thousands."""
TOGETHER = 48
"""Streams that are woken in one go by what is for all: one or two milliseconds' work, two thirds of
it the system's, which sends bytes while no thread has the interpreter."""
PAUSE_SECONDS = 0.001
"""Between two goes. Threads have the interpreter meanwhile, such as the one that places a job: it
asks for it after each answer of the database, and would wait for a go each time."""
PING_SECONDS = 10.0
"""Between two wake-ups of a stream without news, which make it show that it is still there."""
REPAIR_SECONDS = 2.0
"""The same where nobody tells this process of news, so that each stream has to look for itself."""


class Woken(Protocol):
    """A stream, as far as it is woken."""

    caller: WorkerCaller
    """Who opened it."""
    is_void: bool
    """That credential has ended, and the stream has to."""

    def wake(self) -> None:
        """Tell what is new, or at least that the stream is still there."""


class WorkerStreams:
    """Wakes streams at news, and now and then without; from the thread of the event loop."""

    def __init__(self, hub: Hub, feed: EventFeed, count: Gauge) -> None:
        self._hub, self._feed, self._count = hub, feed, count.labels("worker")
        self._of: dict[str, tuple[Woken, ...]] = {}
        """By worker: one each, and two for a moment when it comes back."""
        self._looked_at: dict[Woken, float] = {}
        """When each was woken for its silence, the longest ago first; those of ``_of``."""

    @property
    def open(self) -> Collection[Woken]:
        """Those that are open now."""
        return self._looked_at.keys()

    def of(self, worker_id: str) -> Collection[Woken]:
        """Those of one worker."""
        return self._of.get(worker_id, ())

    def add(self, stream: Woken) -> None:
        """Wake it from now on."""
        worker_id = stream.caller.worker_id
        self._of[worker_id] = (*self._of.get(worker_id, ()), stream)
        self._looked_at[stream] = asyncio.get_running_loop().time()
        self._count.inc()

    def remove(self, stream: Woken) -> None:
        """Wake it no more."""
        worker_id = stream.caller.worker_id
        rest = tuple(each for each in self._of[worker_id] if each is not stream)
        if rest:
            self._of[worker_id] = rest
        else:
            del self._of[worker_id]
        del self._looked_at[stream]
        self._count.dec()

    async def run(self) -> None:
        """Work until cancelled."""
        with self._hub.fill(_Bells(self._of)) as bells:
            while True:
                self._wake_silent(asyncio.get_running_loop().time())
                await bells.heard(TICK_SECONDS)
                if bells.take():
                    await self._wake_all()

    async def _wake_all(self) -> None:
        """Wake some at a time; in the pauses jobs are placed."""
        streams = list(self.open)
        for start in range(0, len(streams), TOGETHER):
            for stream in streams[start : start + TOGETHER]:
                stream.wake()
            await asyncio.sleep(PAUSE_SECONDS)

    def _wake_silent(self, now: float) -> None:
        limit = now - (PING_SECONDS if self._feed.is_tailed else REPAIR_SECONDS)
        due = takewhile(lambda item: item[1] <= limit, self._looked_at.items())
        for stream, _ in list(due):
            del self._looked_at[stream]
            self._looked_at[stream] = now
            stream.wake()


class _Bells(Inbox):
    """Wakes the streams of a worker that there is news for, at once; keeps what is for all."""

    def __init__(self, streams: dict[str, tuple[Woken, ...]]) -> None:
        super().__init__(topics.TO_WORKERS)
        self._streams = streams

    def put(self, topic: str) -> None:
        """Called by the hub."""
        if topic == topics.WORKERS:
            super().put(topic)
        for stream in self._streams.get(topic.removeprefix(topics.WORKER), ()):
            stream.wake()
