"""One reader of the outbox for all streams of this process, however many there are."""

import asyncio

import structlog

from st_controller.events.hub import TAIL
from st_controller.platform import Platform
from st_controller.services import outbox
from st_controller.store.database import DatabaseError

log = structlog.get_logger(__name__)

REPAIR_SECONDS = 2.0
"""The longest that an event of another process waits when its wake-up was missed."""


class Tail:
    """Fills the feed with what other processes placed, and wakes those who follow it.

    What this process places is in the feed already. So a stream reads memory alone, unless it
    resumes from a place that is too old for that.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self) -> None:
        """Work until cancelled; a database that is away is waited for."""
        platform = self._platform
        try:
            with platform.hub.follow(TAIL) as bell:
                while True:
                    try:
                        topics = await asyncio.to_thread(self._read_on)
                    except DatabaseError as error:
                        log.warning("the outbox cannot be read", error=type(error).__name__)
                    else:
                        platform.hub.ring_here(topics)
                    await bell.heard(REPAIR_SECONDS)
        finally:
            platform.feed.is_tailed = False

    def _read_on(self) -> frozenset[str]:
        """Take in what came after the end of the feed; of which topics."""
        feed, topics = self._platform.feed, set[str]()
        with self._platform.db.read() as session:
            feed.begin(outbox.current_position(session))
            feed.is_tailed = True
            while True:
                rows = outbox.all_after(session, feed.ends or 0)
                feed.take(rows, are_next=True)
                topics.update(row["topic"] for row in rows)
                if len(rows) < outbox.BATCH:
                    return frozenset(topics)
