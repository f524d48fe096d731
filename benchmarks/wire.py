"""HTTP/1.1 for load: bytes that are made once, connections that stay open, event streams.

It costs a client about 30 microseconds a request, so that on a machine with two cores the server
is what is measured. It knows what this server sends and no more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

PATIENCE = 60.0
"""Seconds without an answer after which a call is given up."""


class BrokenConnectionError(ConnectionError):
    """The server closed a connection on which an answer was still to come."""


def encode(
    method: str, path: str, key: str | None, body: bytes = b"", *, coding: str | None = None
) -> bytes:
    """A whole request; ``coding`` says how the body is compressed."""
    head = [f"{method} {path} HTTP/1.1", "Host: controller", f"Content-Length: {len(body)}"]
    if key:
        head.append(f"Authorization: Bearer {key}")
    if body:
        head.append("Content-Type: application/json")
    if coding:
        head.append(f"Content-Encoding: {coding}")
    return "\r\n".join([*head, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._bytes = b""
        self._answers: deque[asyncio.Future[tuple[int, bytes]]] = deque()

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect to a server of this machine."""
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return made

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        assert self._transport
        if self._transport.is_closing():
            raise BrokenConnectionError("the server has closed this connection")
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._transport.write(request)
        return await answer

    def close(self) -> None:
        """Close at once."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._bytes += data
        while found := answer_of(self._bytes):
            status, body, self._bytes = found
            waiting = self._answers.popleft()
            if not waiting.done():  # whoever asked may have been cancelled
                waiting.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        while self._answers:
            waiting = self._answers.popleft()
            if not waiting.done():
                waiting.set_exception(BrokenConnectionError(str(exc or "closed by the server")))


class EventStream(asyncio.Protocol):
    """Server-sent events, each handed to ``take`` with its name and its JSON as it arrives."""

    def __init__(self, request: bytes, take: Callable[[str, bytes], None]) -> None:
        self._request, self._take = request, take
        self._transport: asyncio.Transport | None = None
        self._raw = b""
        self._text = b""
        self._begun = False
        self.closed = asyncio.Event()

    @classmethod
    async def open(
        cls, port: int, key: str, take: Callable[[str, bytes], None], path: str
    ) -> "EventStream":
        """Follow ``path`` of a server of this machine."""
        request = encode("GET", path, key)
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: cls(request, take), "127.0.0.1", port
        )
        return made

    def close(self) -> None:
        """Close at once."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Called by the loop."""
        self.closed.set()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.closed.is_set()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._raw += data
        if not self._begun:
            head, separator, rest = self._raw.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise BrokenConnectionError(head.decode())
            self._begun, self._raw = True, rest
        self._unchunk()
        *whole, self._text = self._text.split(b"\n\n")
        for event in whole:
            self._tell(event)

    def _unchunk(self) -> None:
        while True:
            size, separator, rest = self._raw.partition(b"\r\n")
            if not separator:
                return
            length = int(size, 16)
            if len(rest) < length + 2:
                return
            self._text += rest[:length]
            self._raw = rest[length + 2 :]

    def _tell(self, event: bytes) -> None:
        name, body = "", b""
        for line in event.split(b"\n"):
            if line.startswith(b"event: "):
                name = line[7:].decode()
            elif line.startswith(b"data: "):
                body = line[6:]
        if name:
            self._take(name, body)


def answer_of(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, body and what follows, once an answer is whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    place = head.find(b"content-length: ")
    length = int(head[place + 16 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
    end += 4
    if len(data) < end + length:
        return None
    return int(data[9:12]), data[end : end + length], data[end + length :]
