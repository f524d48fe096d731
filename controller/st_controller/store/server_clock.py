"""The clock of PostgreSQL, by which all controllers of a database go.

One writes until when a lease runs, and another looks whether it has run out: by clocks that differ
by more than a lease lasts, each would take for lost what is alive.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, Protocol

from st_shared.clock import Clock, in_utc, utc_now

ASKED_AFTER_SECONDS = 10.0
"""Between two looks at the server's clock, while connections are taken from the pool."""
STEADY = timedelta(seconds=1)
"""What is corrected by less makes the clock stand still for as long, and never run backwards."""


class Asked(Protocol):
    """A connection of the driver, outside of a transaction."""

    def execute(self, query: str) -> Any:
        """Run a statement."""

    def rollback(self) -> None:
        """End the transaction."""


def elapsed() -> float:
    """Seconds by a clock that nobody sets; on Linux it goes on while the machine sleeps."""
    boot: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class ServerClock:
    """Gives the moment by the server's clock, from what it said last and the time since then.

    Until a connection was made it is the clock of this process. It is right to half of the time
    that the server took to answer, milliseconds as a rule.
    """

    def __init__(self, own: Clock = utc_now, since: Callable[[], float] = elapsed) -> None:
        self._own, self._elapsed = own, since
        self._set: tuple[datetime, float] | None = None
        """What the server said, and when that was by the clock that nobody sets."""
        self._told = datetime.min.replace(tzinfo=UTC)
        self._asking = Lock()

    def __call__(self) -> datetime:
        """The present moment, aware, in UTC."""
        now, last = self._now(), self._told
        if now < last < now + STEADY:
            return last
        self._told = now
        return now

    def ask(self, connection: Asked) -> None:
        """Ask the server, if that was long ago and nobody does so just now."""
        known = self._set
        if known is not None and self._elapsed() - known[1] < ASKED_AFTER_SECONDS:
            return
        if not self._asking.acquire(blocking=False):
            return
        try:
            before = self._elapsed()
            (said,) = connection.execute("SELECT clock_timestamp()").fetchone()
            after = self._elapsed()
            self._set = in_utc(said), (before + after) / 2
            connection.rollback()
        finally:
            self._asking.release()

    def _now(self) -> datetime:
        if self._set is None:
            return self._own()
        said, at = self._set
        return said + timedelta(seconds=self._elapsed() - at)
