"""A worker that listens to its stream, without a socket between."""

import asyncio
from typing import Any, Self

from st_controller.api.worker_streams import WorkerStreamResponse
from st_controller.platform import Platform
from st_controller.services.caller import WorkerCaller
from st_shared.protocol import sse
from st_shared.protocol.sse import EventReader, ServerSentEvent

SECONDS = 120
"""More than anything here takes; what is waited for in vain takes longer."""


class Listener:
    """One connection; ``async with`` opens it, and goes at the end."""

    def __init__(
        self, platform: Platform, caller: WorkerCaller, last_id: str | None = None
    ) -> None:
        self._response = WorkerStreamResponse(platform, caller, last_id)
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._gone = asyncio.Event()
        self.reads = asyncio.Event()
        """Cleared: it does not read, and the controller has to wait."""
        self.reads.set()
        self.messages: list[dict[str, Any]] = []
        self.pings = 0

    async def __aenter__(self) -> Self:
        self.answering = asyncio.create_task(
            self._response({"headers": []}, self._receive, self._send)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(self.answering, return_exceptions=True)

    async def take(self, count: int) -> list[ServerSentEvent]:
        """The next events, pings aside."""
        events: list[ServerSentEvent] = []
        async with asyncio.timeout(SECONDS):
            while len(events) < count:
                frame = await self._frames.get()
                self.pings += frame == sse.PING
                events += EventReader().read(frame.decode().split("\n"))
        return events

    async def pinged(self, times: int) -> None:
        """Return once as many pings came."""
        async with asyncio.timeout(SECONDS):
            while self.pings < times:
                self.pings += await self._frames.get() == sse.PING

    async def ended(self) -> list[bytes]:
        """What still came until the controller ended the stream."""
        async with asyncio.timeout(SECONDS):
            await self.answering
        assert self.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        return [self._frames.get_nowait() for _ in range(self._frames.qsize())]

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reads.wait()
        self.messages.append(message)
        if message.get("body"):
            self._frames.put_nowait(message["body"])
