"""Server-sent events as an HTTP response."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from st_controller.platform import Platform
from st_controller.services.caller import Caller
from st_controller.services.identity import is_in_force

RECHECK_SECONDS = 10.0
"""How long a credential is believed; a stream that outlives it ends with the ping after that."""


UNBUFFERED = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
"""Headers of a response that no proxy should buffer or keep."""


class EventStreamResponse(StreamingResponse):
    """Frames until there are no more, or the client has gone.

    The framework's own way of noticing that takes a group of tasks for each stream; this takes one.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the generator is closed in either case."""
        del scope
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        is_over = False

        def leave(_gone: object) -> None:
            if not is_over:  # the task may be about something else by now
                task.cancel()

        gone = asyncio.ensure_future(_gone(receive))
        gone.add_done_callback(leave)
        frames = cast("AsyncGenerator[bytes, None]", self.body_iterator)
        start = {"status": self.status_code, "headers": self.raw_headers}
        try:
            await send({"type": "http.response.start", **start})
            async with aclosing(frames):
                async for frame in frames:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not gone.done() or task.uncancel():
                raise
        finally:
            is_over = True
            gone.cancel()


async def _gone(receive: Receive) -> None:
    """Return once the client has."""
    while (await receive())["type"] != "http.disconnect":
        pass


def event_stream(
    platform: Platform, caller: Caller, frames: AsyncGenerator[bytes, None]
) -> StreamingResponse:
    """A response that no proxy should buffer or keep; counted while it is open.

    It ends when the caller's credential does: revoked, expired, signed out or disabled; and when
    what the caller may do has changed.
    """
    return EventStreamResponse(
        _counted(platform, caller, frames), media_type="text/event-stream", headers=UNBUFFERED
    )


async def _counted(
    platform: Platform, caller: Caller, frames: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    allowed = _while_signed_in(platform, caller, frames)
    with platform.telemetry.streams.labels("user").track_inprogress():
        async with aclosing(frames), aclosing(allowed):
            async for frame in allowed:
                yield frame


async def _while_signed_in(
    platform: Platform, caller: Caller, frames: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    checked, forgotten = platform.db.clock(), platform.callers.forgotten
    async for frame in frames:
        is_old = (platform.db.clock() - checked).total_seconds() >= RECHECK_SECONDS
        if is_old or platform.callers.forgotten != forgotten:
            checked, forgotten = platform.db.clock(), platform.callers.forgotten
            if not await asyncio.to_thread(_is_in_force, platform, caller):
                return
        yield frame


def _is_in_force(platform: Platform, caller: Caller) -> bool:
    with platform.db.read() as session:
        return is_in_force(session, caller, platform.db.clock())
