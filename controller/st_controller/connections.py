"""Connections that keep nothing of what is over: two are open for every worker, and mostly idle."""

import asyncio
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class LeanConnection(HttpToolsProtocol):
    """The server's own connection, but for what it keeps while nothing is asked of it.

    That is the last request with its answer, and room for waiters and further requests: half of
    what an idle connection takes.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.flow = _Flow(self.transport)
        self.pipeline = _Pipeline()  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        """An answer was sent."""
        super().on_response_complete()
        latest = self.cycle
        if latest is not None and latest.response_complete and not latest.more_body:
            # No other was begun meanwhile, and nothing more comes of this one.
            self.cycle = self.scope = self.headers = None  # type: ignore[assignment]


class _Pipeline(list[Any]):
    """Requests that came before the answer to an earlier one; the first to come is the last."""

    def appendleft(self, item: Any) -> None:
        """As a deque has it, which takes 760 bytes when it is empty."""
        self.insert(0, item)


class _Flow(FlowControl):
    """Makes an event only while somebody has to wait for it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._writable: asyncio.Event | None = None

    async def drain(self) -> None:
        """Wait until the client reads again."""
        if self._writable is not None:
            await self._writable.wait()

    def pause_writing(self) -> None:
        """The client does not read."""
        if not self.write_paused:
            self.write_paused, self._writable = True, asyncio.Event()

    def resume_writing(self) -> None:
        """It reads again, or has gone."""
        waited, self.write_paused, self._writable = self._writable, False, None
        if waited is not None:
            waited.set()
