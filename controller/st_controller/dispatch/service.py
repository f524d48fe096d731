"""The scheduler's loop: woken by news, it offers jobs; a slow sweep repairs what was missed."""

import asyncio
from datetime import timedelta

import structlog

from st_controller.dispatch.last_holder import LastHolder
from st_controller.dispatch.leadership import (
    RENEW_SECONDS,
    Leadership,
    LeadershipLostError,
)
from st_controller.dispatch.rounds import Rounds
from st_controller.domain.workers import Patience
from st_controller.events.hub import Inbox
from st_controller.platform import Platform
from st_controller.services.live_queue import News
from st_controller.store.database import DatabaseError
from st_controller.store.transaction import QUEUE
from st_shared.ids import new_id

log = structlog.get_logger(__name__)

REPAIR_SECONDS = 10.0
"""Between two looks for what nobody told; at workers, at a part of them every second."""

BUSY = 3
"""Jobs of which a round had news: with so many at once, more are coming."""
LONGEST_REST = 0.02
"""Seconds at most that news are gathered after a busy round, as long as that took."""


class Dispatcher:
    """Leads when it can; while it leads, it places jobs and ends what ran out.

    ``holds_folder`` says that no other process uses the data folder, so that whoever led from
    there before is dead and need not be waited for.
    """

    def __init__(
        self, platform: Platform, holder: str | None = None, *, holds_folder: bool = False
    ) -> None:
        self._platform = platform
        self._last = LastHolder(platform.settings.data_dir) if holds_folder else None
        self._predecessor = self._last.read() if self._last else None
        self._rounds = Rounds(
            platform.db,
            platform.patience,
            platform.queue,
            credential_age=timedelta(days=platform.settings.worker_credential_days),
            absence=_absence(platform.patience),
        )
        self._holder = holder or new_id("ctl")
        self._repaired = float("-inf")
        self.leadership: Leadership | None = None

    async def run(self) -> None:
        """Work until cancelled; a database that is away is waited for.

        However a turn of leading ends, what is in memory is thrown away: after an error that
        nobody foresaw it may be anything.
        """
        while True:
            try:
                await self._lead()
            except LeadershipLostError as error:
                log.warning("leadership lost", reason=str(error))
            except DatabaseError as error:
                log.warning("the database does not answer", error=type(error).__name__)
            finally:
                await self._resign()
            await asyncio.sleep(RENEW_SECONDS)

    async def _lead(self) -> None:
        with self._platform.hub.collect(QUEUE) as inbox:
            while await self._seek():
                await self._serve_until_renewal(inbox)

    async def _serve_until_renewal(self, inbox: Inbox) -> None:
        leadership = self.leadership
        assert leadership is not None  # noqa: S101 - _seek has just set it
        loop = asyncio.get_running_loop()
        until = loop.time() + RENEW_SECONDS
        await asyncio.to_thread(self._rounds.sweep, leadership)
        has_looked = False
        while True:
            news = News.of(inbox.take())
            news.some_workers, has_looked = not has_looked, True
            if loop.time() - self._repaired >= REPAIR_SECONDS:
                news.all_jobs = news.rules = True
                self._repaired = loop.time()
            begun = loop.time()
            await asyncio.to_thread(self._rounds.place, leadership, news)
            if len(news.jobs) >= BUSY:
                await asyncio.sleep(min(loop.time() - begun, LONGEST_REST))
            left = until - loop.time()
            if left <= 0 or not await inbox.heard(min(left, self._patience())):
                return

    def _patience(self) -> float:
        """Seconds until time alone may change a decision, as the last round left it."""
        if not self._rounds.is_done:
            return 0.0
        if self._rounds.due is None:
            return RENEW_SECONDS
        return max(0.01, self._rounds.due - self._platform.db.clock().timestamp())

    async def _seek(self) -> bool:
        alone = self._platform.settings.database_url is None
        found = await asyncio.to_thread(
            self._rounds.seek, self._holder, alone=alone, predecessor=self._predecessor
        )
        if found is None:
            await self._resign()
        elif found != self.leadership or self._rounds.is_set_back:
            self.leadership = found
            if self._last:
                await asyncio.to_thread(self._last.write, found.holder)
            # Workers could not renew while nobody listened: that is not their fault.
            grace = timedelta(seconds=self._platform.patience.lease_ttl)
            await asyncio.to_thread(self._rounds.begin, found, grace)
            # It has just read everything, and what changed meanwhile lies in the inbox.
            self._repaired = asyncio.get_running_loop().time()
            log.info("leading", epoch=found.epoch, holder=found.holder)
        return found is not None

    async def _resign(self) -> None:
        """Forget what was decided with; whoever only follows keeps what it reads for answers."""
        if self.leadership is not None:
            self.leadership = None
            await asyncio.to_thread(self._rounds.resign)


def _absence(patience: Patience) -> timedelta:
    """As long as that no step takes, and no worker that was heard before it falls silent in it."""
    return timedelta(seconds=patience.silent_after - patience.heartbeat)
