"""When a quota runs out if things go on as they did today. Pure."""

from datetime import datetime, timedelta


def runs_out(
    *, used: int, limit: int, pace: float, now: datetime, renews: datetime | None
) -> datetime | None:
    """The moment at which nothing is left at ``pace`` units a second; none: not in this period.

    What is used up already ran out now.
    """
    if used >= limit:
        return now
    if pace <= 0:
        return None
    seconds = (limit - used) / pace
    if seconds > timedelta(days=3660).total_seconds():
        return None
    at = now + timedelta(seconds=seconds)
    return None if renews is not None and at >= renews else at


def pace(used_today: int, begun: datetime, now: datetime) -> float:
    """Units a second since the day begun; of a day that is minutes old, of its first hour."""
    return used_today / max((now - begun).total_seconds(), 3600.0)
