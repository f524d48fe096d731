"""Calendar periods in the time zone of an organisation, and the moments at which they begin."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum

_DAY = timedelta(days=1)


class Period(StrEnum):
    """How long a quota counts before it begins anew."""

    MINUTE = "minute"
    """Of UTC."""
    HOUR = "hour"
    """Of UTC, so that it has sixty minutes on days of 23 and 25 hours too."""
    DAY = "day"
    """From local midnight to local midnight."""
    MONTH = "month"
    """From the first local midnight of a month to that of the next."""
    NONE = "none"
    """It never begins anew."""


def key(period: Period, moment: datetime, zone: tzinfo) -> str:
    """Names the period that a moment lies in; later ones of a kind sort behind earlier ones."""
    match period:
        case Period.MINUTE:
            return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
        case Period.HOUR:
            return moment.astimezone(UTC).strftime("%Y-%m-%dT%HZ")
        case Period.DAY:
            return moment.astimezone(zone).date().isoformat()
        case Period.MONTH:
            return moment.astimezone(zone).date().isoformat()[:7]
        case Period.NONE:
            return ""


def bounds(period: Period, moment: datetime, zone: tzinfo) -> tuple[datetime, datetime] | None:
    """Beginning and end, in UTC, of the period that a moment lies in; none: it has no end."""
    now = moment.astimezone(UTC)
    if period is Period.MINUTE:
        begun = now.replace(second=0, microsecond=0)
        return begun, begun + timedelta(minutes=1)
    if period is Period.HOUR:
        begun = now.replace(minute=0, second=0, microsecond=0)
        return begun, begun + timedelta(hours=1)
    if period is Period.NONE:
        return None
    today = moment.astimezone(zone).date()
    if period is Period.DAY:
        return midnight(today, zone), midnight(today + _DAY, zone)
    first = today.replace(day=1)
    return midnight(first, zone), midnight((first + 31 * _DAY).replace(day=1), zone)


def midnight(day: date, zone: tzinfo) -> datetime:
    """The first moment of a local day, in UTC.

    Where the clocks are put forward at midnight that is when they are; where they are put back
    over it, the earlier of the two midnights.
    """
    found = datetime.combine(day, time(0), zone).astimezone(UTC)
    if found.astimezone(zone).date() == day and found.astimezone(zone).time() == time(0):
        return found
    # There is no such midnight: the day begins where the gap ends, which is at most some hours on.
    low, high = found - timedelta(hours=4), found + timedelta(hours=4)
    while high - low > timedelta(microseconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).date() < day:
            low = middle
        else:
            high = middle
    return high


def cuts(begun: datetime, ended: datetime, *zones: tzinfo) -> Iterator[tuple[datetime, datetime]]:
    """A span of time in pieces none of which reaches over a midnight of any of these zones."""
    marks = {
        at
        for zone in zones
        for day in _days(begun, ended, zone)
        if begun < (at := midnight(day, zone)) < ended
    }
    last = begun
    for mark in sorted(marks | {ended}):
        if mark > last:
            yield last, mark
        last = mark


def _days(begun: datetime, ended: datetime, zone: tzinfo) -> Iterator[date]:
    """The days that begin within a span of time."""
    day, last = begun.astimezone(zone).date(), ended.astimezone(zone).date()
    while day < last:
        day += _DAY
        yield day
