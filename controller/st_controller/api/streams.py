"""Server-sent events as an HTTP response."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.responses import StreamingResponse

from st_controller.platform import Platform
from st_controller.services.caller import Caller, WorkerCaller
from st_controller.services.identity import is_in_force

RECHECK_SECONDS = 10.0
"""How long a credential is believed; a stream that outlives it ends with the ping after that."""


def event_stream(
    platform: Platform, caller: Caller | WorkerCaller, frames: AsyncGenerator[bytes, None]
) -> StreamingResponse:
    """A response that no proxy should buffer or keep; counted while it is open.

    It ends when the caller's credential does: revoked, expired, signed out, disabled or retired.
    """
    return StreamingResponse(
        _counted(platform, caller, frames),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )


async def _counted(
    platform: Platform, caller: Caller | WorkerCaller, frames: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    if isinstance(caller, WorkerCaller):
        holder, allowed = "worker", _while_in_force(platform, caller, frames)
    else:
        holder, allowed = "user", _while_signed_in(platform, caller, frames)
    with platform.telemetry.streams.labels(holder).track_inprogress():
        async with aclosing(frames), aclosing(allowed):
            async for frame in allowed:
                yield frame


async def _while_in_force(
    platform: Platform, caller: WorkerCaller, frames: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    with platform.standing.watch(caller.worker_id) as ticket:
        async for frame in frames:
            if ticket.is_void:
                return
            yield frame


async def _while_signed_in(
    platform: Platform, caller: Caller, frames: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    checked = platform.db.clock()
    async for frame in frames:
        if (platform.db.clock() - checked).total_seconds() >= RECHECK_SECONDS:
            if not await asyncio.to_thread(_is_in_force, platform, caller):
                return
            checked = platform.db.clock()
        yield frame


def _is_in_force(platform: Platform, caller: Caller | WorkerCaller) -> bool:
    with platform.db.read() as session:
        return is_in_force(session, caller, platform.db.clock())
