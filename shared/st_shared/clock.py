"""Time, passed in: production hands over ``utc_now``, tests hand over a ``ManualClock``."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Gives the present moment as an aware UTC datetime."""


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The moment at which the clock stands."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move ``seconds`` ahead."""
        self._now += timedelta(seconds=seconds)
