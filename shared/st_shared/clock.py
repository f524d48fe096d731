"""Time, passed in: production hands over ``utc_now``, tests hand over a ``ManualClock``."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Gives the present moment as an aware UTC datetime."""


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: it lies so near an end of the calendar that UTC has no name for it.
    """
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("should lie in the years 1 to 9999 in UTC, too") from None


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
