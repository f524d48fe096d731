"""A TCP proxy between one worker and its controller that can be broken in four ways.

``cut``    every connection is reset, and new ones as soon as they come
``stall``  connections stay, and nothing passes either way (what was sent arrives late)
``deaf``   requests arrive and answers do not; what is open stays mute for ever, new ones work
``slow``   bytes trickle
"""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

Mode = Literal["open", "cut", "stall", "deaf", "slow"]
MODES: tuple[Mode, ...] = ("cut", "stall", "deaf", "slow")

_PIECE = 65_536
_SLOW_PIECE, _SLOW_PAUSE = 512, 0.02
_REQUEST = re.compile(rb"^(GET|POST|PUT) (\S+) HTTP/1\.1\r\n")


class _Trap:
    """Calls somebody when a request, or its answer, comes by; the bytes wait meanwhile."""

    def __init__(self, pattern: str, side: Literal["before", "after"], act: Callable[[], None]):
        self.pattern, self.side, self.act = re.compile(pattern), side, act


class _Connection:
    """One pair of sockets."""

    def __init__(self, proxy: "Proxy", reader, writer):
        self.proxy, self.reader, self.writer = proxy, reader, writer
        self.is_mute = False
        self.armed: _Trap | None = None
        self.up_writer: asyncio.StreamWriter | None = None
        self.ways: list[asyncio.Task[None]] = []
        """Kept here: nothing else holds what waits for ever."""

    async def run(self) -> None:
        try:
            if self.proxy.mode == "cut":
                return
            await self.proxy.passable()
            up_reader, self.up_writer = await asyncio.open_connection(
                "127.0.0.1", self.proxy.port_to
            )
            self.ways = [
                asyncio.create_task(self._pump(self.reader, self.up_writer, is_request=True)),
                asyncio.create_task(self._pump(up_reader, self.writer, is_request=False)),
            ]
            await asyncio.wait(self.ways, return_when=asyncio.FIRST_COMPLETED)
            for way in self.ways:
                way.cancel()
            await asyncio.gather(*self.ways, return_exceptions=True)
        except OSError:
            pass  # the controller is away: the worker sees its connection close
        finally:
            self.abort()

    def abort(self) -> None:
        """Reset both ends."""
        for writer in (self.writer, self.up_writer):
            if writer is not None:
                raw = writer.get_extra_info("socket")
                if raw is not None:
                    with suppress(OSError):
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    async def _pump(self, reader, writer, *, is_request: bool) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                await self._look(piece, is_request=is_request)
                await self.proxy.passable()
                if not is_request and (self.is_mute or self.proxy.mode == "deaf"):
                    self.is_mute = True
                    continue
                await self._write(piece, writer)
            if self.is_mute:
                await asyncio.Event().wait()  # a mute connection does not even close

    async def _write(self, piece: bytes, writer) -> None:
        while self.proxy.mode == "slow" and piece:
            writer.write(piece[:_SLOW_PIECE])
            await writer.drain()
            piece = piece[_SLOW_PIECE:]
            await asyncio.sleep(_SLOW_PAUSE)
        writer.write(piece)
        await writer.drain()

    async def _look(self, piece: bytes, *, is_request: bool) -> None:
        if is_request:
            found = _REQUEST.match(piece)
            trap = found and self.proxy.take_trap(f"{found[1].decode()} {found[2].decode()}")
            if trap and trap.side == "before":
                await asyncio.to_thread(trap.act)
            elif trap:
                self.armed = trap
        elif self.armed:
            trap, self.armed = self.armed, None
            await asyncio.to_thread(trap.act)


class Proxy:
    """Listens on a free port, in a thread of its own, until it is closed."""

    def __init__(self, port_to: int) -> None:
        self.port_to = port_to
        self.mode: Mode = "open"
        self._traps: list[_Trap] = []
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._flows: asyncio.Event
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port: int = self._call(self._listen())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def turn(self, mode: Mode) -> None:
        """Break the network so, or mend it with ``open``."""

        async def act() -> None:
            self.mode = mode
            if mode == "stall":
                self._flows.clear()
            else:
                self._flows.set()
            if mode == "cut":
                for connection in list(self._connections):
                    connection.abort()

        self._call(act())

    def trap(self, pattern: str, side: Literal["before", "after"], act: Callable[[], None]) -> None:
        """Call ``act`` once, when the next request that fits passes, or when its answer does."""
        with self._lock:
            self._traps.append(_Trap(pattern, side, act))

    def disarm(self, act: Callable[[], None]) -> bool:
        """Forget the trap that was to call ``act``; false: it has sprung."""
        with self._lock:
            left = [trap for trap in self._traps if trap.act != act]
            was_set = len(left) < len(self._traps)
            self._traps = left
        return was_set

    def take_trap(self, request: str) -> _Trap | None:
        with self._lock:
            for trap in self._traps:
                if trap.pattern.search(request):
                    self._traps.remove(trap)
                    return trap
        return None

    async def passable(self) -> None:
        await self._flows.wait()

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> int:
        self._flows = asyncio.Event()
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader, writer) -> None:
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass  # the proxy is being closed; streams would log a cancelled handler as an error
        finally:
            self._connections.discard(connection)

    async def _close(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, work: Awaitable):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
