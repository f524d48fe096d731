"""Server-sent events as an HTTP response."""

from collections.abc import AsyncIterator
from typing import Literal

from fastapi.responses import StreamingResponse

from st_controller.platform import Platform


def event_stream(
    platform: Platform, holder: Literal["worker", "user"], frames: AsyncIterator[bytes]
) -> StreamingResponse:
    """A response that no proxy should buffer or keep; counted while it is open."""
    return StreamingResponse(
        _counted(platform, holder, frames),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )


async def _counted(
    platform: Platform, holder: str, frames: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    with platform.telemetry.streams.labels(holder).track_inprogress():
        async for frame in frames:
            yield frame
