"""Events of a job, as ``jobs/{id}/events`` streams them, and a reader that survives restarts."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from pydantic import Field

from st_client.connection import Connection
from st_client.errors import ClientError, UnreachableError
from st_shared.protocol.message import Moment, Resource
from st_shared.protocol.resources import LogLine, MetricPoint, ProgressView, StateChange
from st_shared.protocol.sse import EventReader, ServerSentEvent

Sleep = Callable[[float], None]


class ProgressUpdate(ProgressView):
    """Stream event ``progress``: how far an attempt is."""

    attempt: int
    seq: int
    at: Moment


class SampleReady(Resource):
    """Stream event ``sample``: a picture was drawn."""

    attempt: int
    seq: int
    at: Moment
    step: int
    path: str
    prompts: list[str] = Field(default_factory=list)


class CheckpointReady(Resource):
    """Stream event ``checkpoint``: a checkpoint is complete."""

    attempt: int
    seq: int
    at: Moment
    step: int
    manifest: str


class OutputReady(Resource):
    """Stream event ``output``: a file of the result is complete."""

    attempt: int
    seq: int
    at: Moment
    name: str
    path: str


JobEvent = (
    StateChange
    | LogLine
    | MetricPoint
    | ProgressUpdate
    | SampleReady
    | CheckpointReady
    | OutputReady
)
"""Anything that happens to a job."""

EventName = Literal["state", "log", "metric", "progress", "sample", "checkpoint", "output"]

EVENT_TYPES: dict[str, type[JobEvent]] = {
    "state": StateChange,
    "log": LogLine,
    "metric": MetricPoint,
    "progress": ProgressUpdate,
    "sample": SampleReady,
    "checkpoint": CheckpointReady,
    "output": OutputReady,
}

EVENT_NAMES = {kind: name for name, kind in EVENT_TYPES.items()}

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


def follow_events(
    connection: Connection,
    job_id: str,
    *,
    after: str | None = None,
    on_reconnect: Callable[[str], None] = lambda _reason: None,
    sleep: Sleep = time.sleep,
) -> Iterator[JobEvent]:
    """Every event of a job from its beginning, once and in order, until its final state.

    ``after``: journal lines up to this ``attempt:seq`` are left out.

    A stream that breaks off is opened again after the last event that came; ``on_reconnect`` is
    told why. Only the first attempt to connect may raise ``UnreachableError``.
    """
    seen, last_id, pause, connected, ended = _Seen(), None, _FIRST_PAUSE, False, False
    while True:
        reason = "the stream ended"
        try:
            for raw in _read_stream(connection, job_id, last_id, after):
                connected, pause, last_id = True, _FIRST_PAUSE, raw.id
                event = _parse(raw)
                if event is not None and seen.is_new(event):
                    yield event
                    if isinstance(event, StateChange):
                        ended = event.state.is_final
        except UnreachableError as error:
            if not connected:
                raise
            reason = error.detail
        if ended:  # only now: a job that was retried has ended before, and goes on
            return
        connected = True
        on_reconnect(reason)
        sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _read_stream(
    connection: Connection, job_id: str, last_id: str | None, after: str | None
) -> Iterator[ServerSentEvent]:
    headers = {"Accept": "text/event-stream"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    reader = EventReader()
    reader.last_id = last_id
    with connection.stream(f"jobs/{job_id}/events", headers, after=after) as reply:
        yield from reader.read(_lines(reply.iter_bytes()))


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Complete lines; broken at line feeds alone, as JSON may hold other breaks (U+2028)."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def _parse(raw: ServerSentEvent) -> JobEvent | None:
    """The event, or none for a kind that this client does not know yet."""
    kind = EVENT_TYPES.get(raw.event)
    if kind is None:
        return None
    try:
        return kind.model_validate_json(raw.data)
    except ValueError as error:
        raise ClientError(
            f"a {raw.event} event of another shape came from the controller",
            detail=str(error),
            hint="use an st of the controller's version",
            code="unexpected_answer",
        ) from None


class _Seen:
    """Tells what came before, as a controller may repeat the event at which a stream broke."""

    def __init__(self) -> None:
        self._last: dict[tuple[type[JobEvent], int], int] = {}

    def is_new(self, event: JobEvent) -> bool:
        attempt = 0 if isinstance(event, StateChange) else event.attempt
        number = event.version if isinstance(event, StateChange) else event.seq
        if number <= self._last.get((type(event), attempt), -1):
            return False
        self._last[type(event), attempt] = number
        return True
