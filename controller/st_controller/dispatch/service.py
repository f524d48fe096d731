"""The scheduler's loop: woken by news, it offers jobs; a slow sweep repairs what was missed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from st_controller.dispatch.leadership import (
    RENEW_SECONDS,
    Leadership,
    LeadershipLostError,
)
from st_controller.dispatch.rounds import Rounds
from st_controller.platform import Platform
from st_controller.store.database import DatabaseError
from st_controller.store.transaction import QUEUE
from st_shared.ids import new_id

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
"""Between two looks at leases, offers and silent workers."""


class Dispatcher:
    """Leads when it can; while it leads, it places jobs and ends what ran out."""

    def __init__(self, platform: Platform, holder: str | None = None) -> None:
        self._platform = platform
        self._rounds = Rounds(platform.db, platform.patience)
        self._holder = holder or new_id("ctl")
        self.leadership: Leadership | None = None

    async def run(self) -> None:
        """Work until cancelled; a database that is away is waited for."""
        while True:
            try:
                await self._lead()
            except LeadershipLostError as error:
                log.warning("leadership lost", reason=str(error))
                self.leadership = None
            except DatabaseError as error:
                log.warning("the database does not answer", error=type(error).__name__)
                self.leadership = None
            await asyncio.sleep(RENEW_SECONDS)

    async def _lead(self) -> None:
        while await self._seek():
            with self._platform.hub.follow(QUEUE) as bell:
                await self._serve_until_renewal(bell.heard)

    async def _serve_until_renewal(self, heard: Callable[[float], Awaitable[bool]]) -> None:
        leadership = self.leadership
        assert leadership is not None  # noqa: S101 - _seek has just set it
        loop = asyncio.get_running_loop()
        until = loop.time() + RENEW_SECONDS
        await asyncio.to_thread(self._rounds.sweep, leadership)
        while True:
            await asyncio.to_thread(self._rounds.place, leadership)
            left = until - loop.time()
            if left <= 0 or not await heard(min(left, SWEEP_SECONDS)):
                return

    async def _seek(self) -> bool:
        found = await asyncio.to_thread(
            self._rounds.seek, self._holder, alone=self._platform.settings.database_url is None
        )
        if found and found != self.leadership:
            log.info("leading", epoch=found.epoch, holder=found.holder)
            # Workers could not renew while nobody listened: that is not their fault.
            grace = timedelta(seconds=self._platform.patience.lease_ttl)
            await asyncio.to_thread(self._rounds.forgive, found, grace)
        self.leadership = found
        return found is not None
