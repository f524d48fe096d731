"""The event stream of a worker as an HTTP response, of which a process holds thousands."""

import asyncio

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from st_controller.api.streams import UNBUFFERED
from st_controller.events.worker_stream import WorkerStream
from st_controller.platform import Platform
from st_controller.services.caller import WorkerCaller

LONGEST_ID = 40
"""Characters of ``Last-Event-ID``."""


class WorkerStreamResponse(Response):
    """``STREAM_EVENTS`` of the contract, until the credential ends or the worker has gone.

    While nothing is told one task waits for the worker to go, and that is all.
    """

    media_type = "text/event-stream"

    def __init__(self, platform: Platform, caller: WorkerCaller, last_event_id: str | None) -> None:
        super().__init__(headers=UNBUFFERED)
        del self.headers["content-length"]
        self._platform, self._caller, self._last_id = platform, caller, last_event_id
        self.has_begun = False
        """Whether anything was answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
            NotFound: there is no such worker, and nothing is answered yet.
        """
        scope["headers"].clear()  # nobody needs them any more, and it may stay for months
        platform, task = self._platform, asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one

        async def write(frame: bytes) -> None:
            await send({"type": "http.response.body", "body": frame, "more_body": True})

        stream = WorkerStream(platform, self._caller, write, task.cancel)
        platform.streams.add(stream)
        try:
            frames = await stream.begin(self._last_id)
            self.has_begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for frame in frames:
                await write(frame)
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
