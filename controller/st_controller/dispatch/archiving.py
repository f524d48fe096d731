"""Moves journal lines to the object store, beside the scheduler and by the same leader."""

import asyncio
from collections.abc import Callable

import structlog

from st_controller.platform import Platform
from st_controller.services import journal_archive
from st_controller.store.database import DatabaseError
from st_shared.objectstore import StoreUnreachableError

log = structlog.get_logger(__name__)

REST_SECONDS = 2.0
"""Between two looks for lines that can be moved."""


class Archiving:
    """Works while ``is_leading``; that two do so for a moment does no harm."""

    def __init__(self, platform: Platform, is_leading: Callable[[], bool]) -> None:
        self._platform, self._is_leading = platform, is_leading

    async def run(self) -> None:
        """Work until cancelled; what a part that is away did not take stays in SQL until later."""
        while True:
            if self._is_leading():
                try:
                    await asyncio.to_thread(self.move_all)
                except (DatabaseError, StoreUnreachableError) as error:
                    log.warning("journal lines stay in SQL for now", why=type(error).__name__)
            await asyncio.sleep(REST_SECONDS)

    def move_all(self) -> int:
        """Move what can be moved now; how many segments."""
        moved = 0
        with self._platform.db.read() as session:
            due = journal_archive.due(session)
        for attempt_id in due:
            moved += journal_archive.move(self._platform.db, self._platform.objects, attempt_id)
        return moved
