"""Server-sent events as an HTTP response."""

from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse


def event_stream(frames: AsyncIterator[bytes]) -> StreamingResponse:
    """A response that no proxy should buffer or keep."""
    return StreamingResponse(
        frames,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
    )
