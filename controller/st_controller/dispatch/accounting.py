"""Counts what jobs use, beside the scheduler and by the same leader."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from st_controller.platform import Platform
from st_controller.services.policy import accrual, book, stock
from st_controller.store.database import Database, DatabaseError

log = structlog.get_logger(__name__)

REST_SECONDS = 10.0
"""Between two counts; what runs beyond its quota does so for as long, which its hold pays for."""
STORAGE_SECONDS = 60.0
"""Between two counts of what is stored."""
YOUNG = timedelta(seconds=60)
"""For so long after a counter was made it is counted anew, until nobody can be under way who did
not know of it."""


class Accounting:
    """Works while ``is_leading``; that two do so for a moment does no harm."""

    def __init__(self, platform: Platform, is_leading: Callable[[], bool]) -> None:
        self._books, self._is_leading = Books(platform.db), is_leading

    async def run(self) -> None:
        """Work until cancelled; while the database is away nothing is lost, only counted later."""
        while True:
            await asyncio.sleep(REST_SECONDS)
            if self._is_leading():
                try:
                    await asyncio.to_thread(self._books.keep)
                except DatabaseError as error:
                    log.warning("what jobs use is counted later", why=type(error).__name__)


class Books:
    """What is done each time, in short transactions."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stored_at: datetime | None = None

    def keep(self) -> None:
        """Count what was used, and mend what may have been missed."""
        self._make_counters()
        after: str | None = ""
        while after is not None:
            with self._db.write() as tx:
                after = accrual.accrue(tx, after)
        now = self._db.clock()
        storage = self._stored_at is None or now - self._stored_at >= timedelta(
            seconds=STORAGE_SECONDS
        )
        with self._db.read() as session:
            due = stock.due(session, now - YOUNG, storage=storage)
        for path, kind in due:
            with self._db.write() as tx:
                stock.take_again(tx, book.current(tx.session).quotas, path, kind)
        self._stored_at = now if storage else self._stored_at

    def _make_counters(self) -> None:
        """Let limits that users have by their roles hold for what runs already."""
        with self._db.read() as session:
            lacking = stock.lacking(session, book.current(session).quotas)
        for place in lacking:
            with self._db.write() as tx:
                stock.take_again(tx, book.current(tx.session).quotas, place.path, place.kind)
