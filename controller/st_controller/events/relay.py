"""Gives committed outbox events their place in the one global order, and wakes their followers."""

import asyncio
from datetime import timedelta

import structlog

from st_controller.platform import Platform
from st_controller.services.outbox import assign_positions, prune
from st_controller.store.database import DatabaseError
from st_controller.store.transaction import OUTBOX

log = structlog.get_logger(__name__)

REPAIR_SECONDS = 2.0
"""The longest that an event waits when its wake-up was missed."""
RETENTION = timedelta(hours=24)
"""How far back a stream can be resumed; older resumptions begin with the present state."""
PRUNE_SECONDS = 600.0


class Relay:
    """Any process may relay: the row of the counter is locked while places are given."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self) -> None:
        """Work until cancelled; a database that is away is waited for."""
        next_prune = 0.0
        with self._platform.hub.follow(OUTBOX) as bell:
            while True:
                try:
                    await asyncio.to_thread(self._deliver)
                    now = asyncio.get_running_loop().time()
                    if now >= next_prune:
                        await asyncio.to_thread(self._prune)
                        next_prune = now + PRUNE_SECONDS
                except DatabaseError as error:
                    log.warning("the outbox cannot be read", error=type(error).__name__)
                await bell.heard(REPAIR_SECONDS)

    def _deliver(self) -> None:
        full = True
        while full:
            with self._platform.db.write() as tx:
                full = assign_positions(tx)

    def _prune(self) -> None:
        with self._platform.db.write() as tx:
            removed = prune(tx, tx.now - RETENTION)
        if removed:
            log.info("old events removed", count=removed)
