"""The event stream of a worker as an HTTP response, of which a process holds thousands."""

import asyncio

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from st_controller.api.streams import UNBUFFERED
from st_controller.errors import Refusal
from st_controller.events.worker_stream import WorkerStream
from st_controller.platform import Platform
from st_controller.services.caller import WorkerCaller
from st_controller.store.database import DatabaseAwayError

LONGEST_ID = 40
"""Characters of ``Last-Event-ID``."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *((name.lower().encode(), value.encode()) for name, value in UNBUFFERED.items()),
]


Unbegun = Refusal | DatabaseAwayError
"""Why a stream was not begun."""


class WorkerStreamResponse(Response):
    """``STREAM_EVENTS`` of the contract, until the credential ends or the worker has gone."""

    media_type = "text/event-stream"

    def __init__(self, platform: Platform, caller: WorkerCaller, last_event_id: str | None) -> None:
        super().__init__(headers=UNBUFFERED)
        del self.headers["content-length"]
        self._hold = (platform, caller, last_event_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            NotFound: there is no such worker, and nothing is answered yet.
        """
        error = await hold_stream(*self._hold, scope, receive, send)
        if error is not None:
            raise error


async def hold_stream(
    platform: Platform,
    caller: WorkerCaller,
    last_id: str | None,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> Unbegun | None:
    """Answer with the stream; why not, where nothing was answered.

    While nothing is told one task waits here for the worker to go, and that is all.
    """
    scope["headers"].clear()  # nobody needs them any more, and it may stay for months
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one

    async def write(frame: bytes) -> None:
        await send({"type": "http.response.body", "body": frame, "more_body": True})

    stream = WorkerStream(platform, caller, write, task.cancel)
    platform.streams.add(stream)
    try:
        try:
            frames = await stream.begin(last_id)
        except (Refusal, DatabaseAwayError) as error:
            return error
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
        for frame in frames:
            await write(frame)
        del frames
        stream.go_on()
        while (await receive())["type"] != "http.disconnect":
            pass
    except asyncio.CancelledError:
        if not stream.is_over or task.uncancel():
            raise  # the server shuts down
        if stream.error:
            raise stream.error from None
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        platform.streams.remove(stream)
        await stream.close()
    return None
