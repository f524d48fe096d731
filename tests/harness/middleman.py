"""A TCP proxy in the test's own loop whose streams are cut, stalled, or kept in a buffer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_PIECE = 65_536
_STREAM = b"GET /v1/worker/stream "


class Middleman:
    """Passes bytes on; what the answers of worker streams suffer can be chosen."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname, parts.port
        self.url = ""
        self.keeps_streams = False
        """Answers of streams that are opened from now on stay in a buffer for ever."""
        self.streams = 0
        """How many were opened."""
        self.pieces = 0
        """Of answers that were passed on."""
        self._open: set[asyncio.StreamWriter] = set()
        self._served: set[asyncio.Task[None]] = set()
        self._stalled = asyncio.Event()
        self._is_over = asyncio.Event()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._open:
            writer.transport.abort()

    def stall(self) -> None:
        """Streams that are open now bring nothing any more, and do not end either."""
        self._stalled.set()
        self._stalled = asyncio.Event()

    async def close(self) -> None:
        """End every connection, those that were taken just now as well."""
        for served in self._served:
            served.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted closes its socket in the next turn

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = asyncio.current_task()
        assert served
        self._served.add(served)
        try:
            upstream, to = await asyncio.open_connection(self._host, self._port)
            await self._pass_on(reader, writer, upstream, to)
        except (OSError, asyncio.CancelledError):
            pass  # the server is gone, or the test is over
        finally:
            writer.transport.abort()
            self._served.discard(served)

    async def _pass_on(self, reader, writer, upstream, to) -> None:
        mute = asyncio.Event()
        self._open |= {writer, to}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, to, mute))
                group.create_task(self._answer(upstream, writer, mute, self._stalled))
        except* OSError:
            pass  # one side is gone, so the other goes as well
        finally:
            for each in (writer, to):
                each.transport.abort()
            self._open -= {writer, to}

    async def _ask(self, reader, to, mute: asyncio.Event) -> None:
        while piece := await reader.read(_PIECE):
            if piece.startswith(_STREAM):
                self.streams += 1
                if self.keeps_streams:
                    mute.set()
            to.write(piece)
            await to.drain()
        raise ConnectionResetError

    async def _answer(self, upstream, writer, mute: asyncio.Event, stalled: asyncio.Event) -> None:
        while piece := await upstream.read(_PIECE):
            if mute.is_set() or (stalled.is_set() and b"HTTP/1.1" not in piece[:8]):
                continue
            writer.write(piece)
            await writer.drain()
            self.pieces += 1
        raise ConnectionResetError


@asynccontextmanager
async def between(target: str) -> AsyncIterator[Middleman]:
    """A middleman before ``target`` while the block runs."""
    middleman = Middleman(target)
    server = await asyncio.start_server(middleman.serve, "127.0.0.1", 0)
    middleman.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield middleman
    finally:
        server.close()
        await middleman.close()
