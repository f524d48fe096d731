"""What ``st-worker doctor`` asks of a controller, under ``/v1/probe``.

| call | who may | answer |
|---|---|---|
| ``GET stream`` (SSE) | everybody | ``TICKS`` events ``tick``, ``TICK_SECONDS`` apart |
| ``POST upload`` | worker credential | ``ProbeTicket`` |
"""

from pydantic import Field

from st_shared.protocol.message import Moment, Resource

STREAM_PATH = "/v1/probe/stream"
UPLOAD_PATH = "/v1/probe/upload"

TICKS = 3
TICK_SECONDS = 0.25
"""Whoever gets all ticks at once sits behind something that keeps streams back."""

PROBE_CONTENT = b"st-worker doctor was here\n"
"""What the ticket lets a worker store, and nothing else."""


class Tick(Resource):
    """One event of the stream."""

    number: int
    """From 1."""
    at: Moment
    """The controller's clock."""


class ProbeTicket(Resource):
    """How to store ``PROBE_CONTENT`` and to fetch it again."""

    url: str
    """Absolute, or relative to the controller's address."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers that the PUT must carry."""
    download_url: str
