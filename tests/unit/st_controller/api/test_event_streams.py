"""The response that carries an event stream: its end, and the client's."""

import asyncio

import pytest

from st_controller.api.streams import EventStreamResponse

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Client:
    """One end of a connection."""

    def __init__(self):
        self.sent, self.closed = [], asyncio.Event()
        self.heard = asyncio.Event()

    async def receive(self):
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        self.heard.set()

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)


class Frames:
    """Some frames, then silence until it is closed."""

    def __init__(self, *frames, ends=False):
        self.frames, self.ends, self.is_closed = frames, ends, False

    async def generate(self):
        try:
            for frame in self.frames:
                yield frame
            if not self.ends:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


async def nothing_else_runs():
    await asyncio.sleep(0)
    running = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
    assert "_gone" not in running


async def test_frames_are_sent_until_there_are_no_more():
    client, frames = Client(), Frames(b"one", b"two", ends=True)
    await EventStreamResponse(frames.generate())({"type": "http"}, client.receive, client.send)
    assert client.sent[0]["type"] == "http.response.start"
    assert client.body == b"onetwo"
    assert client.sent[-1]["more_body"] is False
    assert frames.is_closed
    await nothing_else_runs()


async def test_when_the_client_goes_the_generator_is_closed_and_nothing_is_raised():
    client, frames = Client(), Frames(b"one")
    response = EventStreamResponse(frames.generate())
    answering = asyncio.create_task(response({"type": "http"}, client.receive, client.send))
    await client.heard.wait()
    client.closed.set()
    await answering
    assert frames.is_closed
    assert not answering.cancelled()
    await nothing_else_runs()


async def test_a_server_that_shuts_down_can_cancel_it():
    client, frames = Client(), Frames(b"one")
    response = EventStreamResponse(frames.generate())
    answering = asyncio.create_task(response({"type": "http"}, client.receive, client.send))
    await client.heard.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert frames.is_closed


async def test_an_error_of_the_generator_is_the_servers():
    async def broken():
        yield b"one"
        raise ValueError("a defect")

    client = Client()
    with pytest.raises(ValueError, match="a defect"):
        await EventStreamResponse(broken())({"type": "http"}, client.receive, client.send)
    await nothing_else_runs()
