"""Whether workers that hold a stream may still hold it: one look for all of them."""

import asyncio
from collections.abc import Collection, Sequence

import structlog

from st_controller.events.hub import Hub
from st_controller.events.worker_streams import Woken, WorkerStreams
from st_controller.services.identity import hashes_in_force
from st_controller.store.database import Database, DatabaseError
from st_controller.store.transaction import CREDENTIALS_OF

log = structlog.get_logger(__name__)

RECHECK_SECONDS = 10.0
"""The longest that a stream outlives its credential where the news of its end did not arrive."""
TOGETHER = 250
"""Streams of one look, beside which others have their turn."""


class Standing:
    """Ends the streams of workers whose credential has ended."""

    def __init__(self, db: Database, hub: Hub, streams: WorkerStreams) -> None:
        self._db, self._hub, self._streams = db, hub, streams

    async def run(self) -> None:
        """Work until cancelled: at once when a credential ends, and now and then at all."""
        loop = asyncio.get_running_loop()
        with self._hub.collect(CREDENTIALS_OF) as inbox:
            asked: Collection[Woken] = self._streams.open
            due = loop.time() + RECHECK_SECONDS
            while True:
                try:
                    await self._look(list(asked))
                except DatabaseError as error:
                    log.warning("credentials cannot be looked up", error=type(error).__name__)
                if await inbox.heard(due - loop.time()):
                    ended = [topic.removeprefix(inbox.prefix) for topic in inbox.take()]
                    asked = [each for worker_id in ended for each in self._streams.of(worker_id)]
                else:
                    asked, due = self._streams.open, loop.time() + RECHECK_SECONDS

    async def _look(self, asked: Sequence[Woken]) -> None:
        for start in range(0, len(asked), TOGETHER):
            await self._look_at_some(asked[start : start + TOGETHER])

    async def _look_at_some(self, asked: Sequence[Woken]) -> None:
        in_force = await asyncio.to_thread(
            self._in_force, sorted({stream.caller.worker_id for stream in asked})
        )
        for stream in asked:
            if stream.caller.digest not in in_force:
                stream.is_void = True
                stream.wake()

    def _in_force(self, worker_ids: list[str]) -> set[str]:
        with self._db.read() as session:
            return hashes_in_force(session, worker_ids)
