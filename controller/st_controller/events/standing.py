"""Whether workers that hold a stream may still hold it: one look for all of them."""

import asyncio

import structlog

from st_controller.events.hub import Hub
from st_controller.events.worker_streams import WorkerStreams
from st_controller.services.identity import hashes_in_force
from st_controller.store.database import Database, DatabaseError
from st_controller.store.transaction import CREDENTIALS

log = structlog.get_logger(__name__)

RECHECK_SECONDS = 10.0
"""The longest that a stream outlives its credential where the news of its end did not arrive."""


class Standing:
    """Ends the streams of workers whose credential has ended."""

    def __init__(self, db: Database, hub: Hub, streams: WorkerStreams) -> None:
        self._db, self._hub, self._streams = db, hub, streams

    async def run(self) -> None:
        """Work until cancelled: at once when any credential ends, and now and then."""
        with self._hub.follow(CREDENTIALS) as bell:
            while True:
                try:
                    await self._look()
                except DatabaseError as error:
                    log.warning("credentials cannot be looked up", error=type(error).__name__)
                await bell.heard(RECHECK_SECONDS)

    async def _look(self) -> None:
        asked = list(self._streams.open)
        if not asked:
            return
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
