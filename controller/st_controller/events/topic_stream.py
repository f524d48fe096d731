"""Streams out of the outbox: a worker's orders, and the changes that people watch."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

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
        place, frames = await asyncio.to_thread(beginning, platform, last_id, opening)
        for frame in frames:
            yield frame
        silence, rang = 0.0, False
        while True:
            place, frames, is_all = await news_after(platform, topics, place, tell)
            if not frames and (rang or silence >= PING_SECONDS):
                frames = [sse.PING]  # also to a ring without news: it may mean the stream's end
            for frame in frames:
                yield frame
            if frames:
                silence = 0.0
            rang = False
            if is_all:
                wait = PING_SECONDS - silence if platform.feed.is_tailed else REPAIR_SECONDS
                rang = await bell.heard(wait)
                silence += 0.0 if rang else wait


async def news_after(
    platform: Platform, topics: Sequence[str], place: int, tell: Tell | None = None
) -> tuple[int, list[bytes], bool]:
    """The place after the next events, these, and whether that is all there is now.

    Memory answers where it reaches back so far, and the database where it does not.
    """
    found = platform.feed.after(topics, place)
    if found is not None:
        frames = [event.frame for event in found.events]
        if found.events and tell is not None:
            frames = await asyncio.to_thread(_told, platform, found.events, tell)
        return max(place, found.upto), frames, True
    before = place
    place, frames = await asyncio.to_thread(_news, platform, topics, place, tell)
    return place, frames, place == before


def beginning(
    platform: Platform, last_id: str | None, opening: Callable[[ReadSession], tuple[str, str]]
) -> tuple[int, list[bytes]]:
    """The place after which a stream goes on, and what it begins with."""
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
        newest = outbox.current_position(session)
        events = outbox.events_after(session, topics, place)
        frames = list(_frames(session, events, tell))
    if len(events) < outbox.BATCH:
        return max(place, newest), frames
    return events[-1].position, frames


def _told(platform: Platform, events: Sequence[PlacedEvent], tell: Tell) -> list[bytes]:
    with platform.db.read() as session:
        return list(_frames(session, events, tell))


def _frames(
    session: ReadSession, events: Iterable[PlacedEvent], tell: Tell | None
) -> Iterator[bytes]:
    for event in events:
        if tell is None:
            yield event.frame
        elif (body := tell(session, event)) is not None:
            yield sse.encode(event.kind, body, str(event.position))
