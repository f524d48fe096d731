"""Clears the object store of what deleted jobs left, beside the scheduler, by the same leader."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from st_controller.platform import Platform
from st_controller.services import retention
from st_controller.store.database import DatabaseError
from st_shared.objectstore import StoreUnreachableError

log = structlog.get_logger(__name__)

REST_SECONDS = 60.0
"""Between two looks for jobs that were deleted long enough ago."""


class Retention:
    """Works while ``is_leading``; that two do so for a moment does no harm."""

    def __init__(self, platform: Platform, is_leading: Callable[[], bool]) -> None:
        self._platform, self._is_leading = platform, is_leading
        self._grace = timedelta(days=platform.settings.deleted_job_days)

    async def run(self) -> None:
        """Work until cancelled; what a part that is away held up is done the next time."""
        while True:
            await asyncio.sleep(REST_SECONDS)
            if self._is_leading():
                try:
                    await asyncio.to_thread(self.remove)
                except (DatabaseError, StoreUnreachableError) as error:
                    log.warning("deleted jobs are cleared later", why=type(error).__name__)

    def remove(self) -> int:
        """Remove all that may go now; how many objects."""
        db = self._platform.db
        while True:
            with db.read() as session:
                jobs = retention.due(session, db.clock() - self._grace)
            if not jobs:
                return retention.remove_doomed(db, self._platform.objects)
            for job_id in jobs:
                is_more = True
                while is_more:
                    with db.write() as tx:
                        is_more = retention.purge(tx, job_id)
                log.info("job purged", job=job_id)
