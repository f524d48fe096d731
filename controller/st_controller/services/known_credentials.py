"""Credentials that were looked up a moment ago, so that not every request asks the database."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from threading import Lock
from typing import Generic, TypeVar

from st_controller.services.caller import Caller, WorkerCaller

BELIEVED = timedelta(seconds=2)
"""The longest that a credential is believed after its end, where the news of it did not arrive."""
BELIEVED_OF_WORKERS = timedelta(seconds=30)
"""The same for workers, of which thousands call every few seconds."""
MOST = 50_000

Holder = TypeVar("Holder", Caller, WorkerCaller)


class KnownCredentials(Generic[Holder]):
    """Digests of credentials in force, and who holds them.

    Whatever ends a credential wakes ``CREDENTIALS``, or of a worker ``CREDENTIALS_OF`` and its id
    (``store/transaction.py``), on which all
    processes forget everything. Only what is in force is kept, never a refusal.
    """

    def __init__(self, believed: timedelta = BELIEVED) -> None:
        self._believed = believed
        self._lock = Lock()
        self._known: dict[str, tuple[Holder, datetime]] = {}
        self._forgotten = 0
        self.looks: dict[tuple[str, int], asyncio.Future[Holder | None]] = {}
        """Looks that are under way, by digest and by ``forgotten`` when they began."""

    @property
    def forgotten(self) -> int:
        """How often some credential was said to have ended; who believed one looks again."""
        return self._forgotten

    def find(
        self, digest: str, now: datetime, look_up: Callable[[], Holder | None]
    ) -> Holder | None:
        """The holder, from memory or by ``look_up``."""
        return self.recall(digest, now) or self._keep(digest, now, self._forgotten, look_up())

    def recall(self, digest: str, now: datetime) -> Holder | None:
        """The holder, where it was looked up a moment ago."""
        found = self._known.get(digest)
        if found is None or not timedelta() <= now - found[1] < self._believed:
            return None
        holder = found[0]
        ends = holder.expires_at if isinstance(holder, Caller) else None
        return None if ends is not None and ends <= now else holder

    def confirm(self, digests: Iterable[str], now: datetime) -> None:
        """These were seen in force, by whoever read the database at ``now``: believe them longer.

        What was forgotten since stays so.
        """
        with self._lock:
            for digest in digests:
                found = self._known.get(digest)
                if found is not None and found[1] < now:
                    self._known[digest] = (found[0], now)

    def forget(self) -> None:
        """Some credential ended: believe none."""
        with self._lock:
            self._forgotten += 1
            self._known.clear()

    def forget_of(self, worker_id: str) -> None:
        """Some credential of this worker ended: believe none of them."""
        with self._lock:
            self._forgotten += 1
            known = list(self._known.items())
            for digest, (holder, _) in known:
                if isinstance(holder, WorkerCaller) and holder.worker_id == worker_id:
                    del self._known[digest]

    def _keep(
        self, digest: str, now: datetime, forgotten: int, holder: Holder | None
    ) -> Holder | None:
        with self._lock:
            # What was looked up before somebody said "forget" may be what they meant.
            if holder is not None and forgotten == self._forgotten:
                self._known.pop(digest, None)
                self._known[digest] = (holder, now)
                if len(self._known) > MOST:
                    del self._known[next(iter(self._known))]
        return holder
