"""Keeps the audit chain: places and codes, signed heads, and the way of old entries out."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from st_controller.domain.audit import BEGINNING, AuditKeys, Head
from st_controller.platform import Platform
from st_controller.services import audit_archive, audit_chain, audit_heads
from st_controller.services.audit_archive import BrokenLogError
from st_controller.services.audit_chain import WrongAuditKeyError
from st_controller.store.database import DatabaseError
from st_controller.store.transaction import Transaction
from st_shared.objectstore import StoreUnreachableError

log = structlog.get_logger(__name__)

REST_SECONDS = 0.5
"""Between two looks for entries that are not chained."""
HEAD_AGE = timedelta(seconds=10)
"""The longest that a new end of the chain is not signed in the object store."""
ARCHIVE_AGE = timedelta(minutes=10)
"""Between two looks for entries that are old enough to go."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_COMPLAINT_AGE = timedelta(minutes=10)


class Auditing:
    """Works while ``is_leading``; that two do so for a moment does no harm."""

    def __init__(
        self, platform: Platform, load: Callable[[], AuditKeys], is_leading: Callable[[], bool]
    ) -> None:
        """``load`` reads the keys, and is asked again where another key took over."""
        self._platform, self._load, self._is_leading = platform, load, is_leading
        self._keys = load()
        self._signed: Head | None = None
        self._signed_at = self._archived_at = self._complained_at = _LONG_AGO

    async def run(self) -> None:
        """Work until cancelled; what a part that is away did not take is done later."""
        while True:
            if self._is_leading():
                try:
                    await asyncio.to_thread(self.work)
                except (DatabaseError, StoreUnreachableError) as error:
                    log.warning("the audit log is not chained for now", why=type(error).__name__)
                except (WrongAuditKeyError, BrokenLogError) as error:
                    self._complain(str(error))
            await asyncio.sleep(REST_SECONDS)

    def work(self) -> None:
        """Chain what is new, sign where that ends, and archive what is old."""
        with self._platform.db.read() as session:
            full = audit_chain.is_behind(session)
        while full:
            with self._platform.db.write() as tx:
                full = self._extend(tx)
        self._sign()
        self._archive()

    def _extend(self, tx: Transaction) -> bool:
        try:
            return audit_chain.extend(tx, self._keys)
        except WrongAuditKeyError:  # a key that was made meanwhile
            self._keys = self._load()
            return audit_chain.extend(tx, self._keys)

    def _sign(self) -> None:
        now = self._now()
        if now - self._signed_at < HEAD_AGE:
            return
        with self._platform.db.read() as session:
            key = audit_chain.key_in_force(session, self._keys)
            head = audit_chain.current_head(session)
        if head not in (self._signed, BEGINNING):
            audit_heads.publish(self._platform.objects, key, head, self._platform.db.clock())
        self._signed, self._signed_at = head, now

    def _archive(self) -> None:
        days, now = self._platform.settings.audit_retention_days, self._now()
        if days is None or now - self._archived_at < ARCHIVE_AGE:
            return
        db, objects = self._platform.db, self._platform.objects
        while moved := audit_archive.move(db, objects, self._keys, timedelta(days=days)):
            log.info("audit entries archived", count=moved)
        self._archived_at = now

    def _complain(self, why: str) -> None:
        """Say it now and then: it stays until somebody mends it."""
        if self._now() - self._complained_at >= _COMPLAINT_AGE:
            self._complained_at = self._now()
            log.error("the audit log needs an operator", why=why)

    def _now(self) -> datetime:
        return self._platform.db.clock()
