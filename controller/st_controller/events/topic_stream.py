"""Streams out of the outbox: a worker's orders, and the changes that people watch."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence

from st_controller.platform import Platform
from st_controller.services import outbox
from st_controller.services.outbox import PlacedEvent
from st_controller.store.database import ReadSession
from st_shared.protocol import sse

REPAIR_SECONDS = 2.0
"""The longest that an event waits when its wake-up was missed."""
PING_SECONDS = 10.0

Tell = Callable[[ReadSession, PlacedEvent], str | None]
"""The JSON of an event for this follower; none when it is not for its eyes."""


async def follow_topics(
    platform: Platform,
    topics: Sequence[str],
    last_id: str | None,
    *,
    opening: Callable[[ReadSession], tuple[str, str]],
    tell: Tell | None = None,
) -> AsyncGenerator[bytes, None]:
    """Encoded events after ``last_id``; without ``tell`` each as it was emitted.

    Without a place to resume from, or with one that is too old, the stream begins with the
    event that ``opening`` gives: all that counts now.
    """
    with platform.hub.follow(*topics) as bell:
        place, frames = await asyncio.to_thread(_begin, platform, last_id, opening)
        for frame in frames:
            yield frame
        silence, is_near = 0.0, False
        while True:
            before = place
            place, frames, is_all = await _after(platform, topics, place, tell, is_near=is_near)
            for frame in frames:
                yield frame
            if frames:
                silence = 0.0
            if place != before and not is_all:
                continue
            rang = await bell.heard(REPAIR_SECONDS)
            is_near = rang and not bell.take_from_afar()
            if not rang:
                silence += REPAIR_SECONDS
            if silence >= PING_SECONDS:
                silence = 0.0
                yield sse.PING


async def _after(
    platform: Platform, topics: Sequence[str], place: int, tell: Tell | None, *, is_near: bool
) -> tuple[int, list[bytes], bool]:
    """The place after the next events, these, and whether more would be told by a ring.

    ``is_near``: a bell rang, and only for what this process placed, so memory may answer. What
    another process placed is in the database alone.
    """
    if is_near and tell is None and (events := platform.feed.after(topics, place)):
        frames = [_encoded(event, json.dumps(event.body)) for event in events]
        return events[-1].position, frames, True
    place, frames = await asyncio.to_thread(_news, platform, topics, place, tell)
    return place, frames, False


def _begin(
    platform: Platform, last_id: str | None, opening: Callable[[ReadSession], tuple[str, str]]
) -> tuple[int, list[bytes]]:
    with platform.db.read() as session:
        if last_id and last_id.isdecimal() and outbox.is_replayable(session, int(last_id)):
            return int(last_id), [sse.PING]
        place = outbox.current_position(session)
        event, data = opening(session)
        return place, [sse.encode(event, data, str(place))]


def _news(
    platform: Platform, topics: Sequence[str], place: int, tell: Tell | None
) -> tuple[int, list[bytes]]:
    with platform.db.read() as session:
        events = outbox.events_after(session, topics, place)
        frames = []
        for event in events:
            body = tell(session, event) if tell else json.dumps(event.body)
            if body is not None:
                frames.append(_encoded(event, body))
        return (events[-1].position if events else place), frames


def _encoded(event: PlacedEvent, body: str) -> bytes:
    return sse.encode(event.kind, body, str(event.position))
