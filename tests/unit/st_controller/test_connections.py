"""Connections forget what is over, and are otherwise those of the server, on real sockets."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvicorn

from st_controller.connections import LeanConnection

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@asynccontextmanager
async def serving(app):
    """A server; gives its connections, and what opens one."""
    config = uvicorn.Config(app, port=0, http=LeanConnection, lifespan="off", log_level="critical")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    writers = []

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    try:
        async with asyncio.timeout(120):
            yield server.server_state.connections, connect
    finally:
        for writer in writers:
            writer.close()
        server.force_exit = True
        await server.shutdown()


def request(path="/", body=b"", length=None, method="POST"):
    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


async def answer(send, body):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def echo(scope, receive, send):
    """Answers with the path and the body; ``/early`` before the body is there."""
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await answer(send, scope["path"].encode() + body)


async def answered(reader):
    """The body of the next answer, which is one chunk."""
    await reader.readuntil(b"\r\n\r\n")
    size = int(await reader.readuntil(b"\r\n"), 16)
    body = await reader.readexactly(size)
    assert await reader.readexactly(7) == b"\r\n0\r\n\r\n"
    return body


async def test_nothing_is_kept_of_a_request_that_was_answered():
    async with serving(echo) as (connections, connect):
        reader, writer = await connect()
        for number in range(3):
            writer.write(request(f"/{number}", b"abc"))
            assert await answered(reader) == f"/{number}abc".encode()
            (connection,) = connections
            assert (connection.cycle, connection.scope, connection.headers) == (None, None, None)


async def test_requests_that_come_together_are_answered_in_their_order():
    async with serving(echo) as (connections, connect):
        reader, writer = await connect()
        writer.write(b"".join(request(f"/{number}", b"x" * number) for number in range(5)))
        found = [await answered(reader) for _ in range(5)]
        assert found == [f"/{number}".encode() + b"x" * number for number in range(5)]
        (connection,) = connections
        assert connection.cycle is None
        writer.write(request("/again"))
        assert await answered(reader) == b"/again"


async def test_a_body_that_comes_after_its_answer_belongs_to_no_other_request():
    async with serving(echo) as (_, connect):
        reader, writer = await connect()
        writer.write(request("/early", b"ab", length=6))
        assert await answered(reader) == b"/early"
        writer.write(b"cdef" + request("/next", b"body"))
        assert await answered(reader) == b"/nextbody"


async def test_one_that_goes_is_noticed_while_it_is_answered_and_while_it_is_idle():
    gone = asyncio.Event()

    async def waits(_scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        gone.set()

    async with serving(waits) as (connections, connect):
        reader, writer = await connect()
        writer.write(request(method="GET"))
        await reader.readuntil(b"x")
        writer.close()
        await gone.wait()
        _, idle = await connect()
        idle.close()
        while connections:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_whoever_does_not_read_is_waited_for():
    sent = []
    piece, pieces = b"x" * 2**20, 16

    async def floods(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent.append(number)
        await send({"type": "http.response.body", "body": b""})

    async with serving(floods) as (connections, connect):
        reader, writer = await connect()
        writer.write(request(method="GET"))
        while not any(each.flow and each.flow.write_paused for each in connections):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert len(sent) < pieces
        came, end = 0, b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            part = await reader.read(2**24)
            came, end = came + part.count(b"x"), (end + part)[-7:]
        assert came == pieces * len(piece)
