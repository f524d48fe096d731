"""Calendar periods, and the days on which clocks are changed."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy import periods
from st_controller.domain.policy.periods import Period

ZONES = [
    ZoneInfo(name)
    for name in (
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Havana",  # puts its clocks forward at midnight
        "Asia/Beirut",  # the same
        "Asia/Kathmandu",  # 5:45
        "Australia/Lord_Howe",  # half an hour of summer time
        "Pacific/Apia",  # left out a whole day in 2011
    )
]
zones = st.sampled_from(ZONES)
moments = st.integers(1_230_768_000_000_000, 1_925_000_000_000_000).map(
    lambda count: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=count)
)
"""2009 to 2030."""


@given(zones, moments, st.sampled_from(Period))
def test_a_moment_lies_in_its_period_and_the_end_in_the_next(zone, moment, period) -> None:
    found = periods.bounds(period, moment, zone)
    if found is None:
        assert period is Period.NONE
        return
    begun, ended = found
    key = periods.key(period, moment, zone)
    assert begun <= moment < ended
    assert periods.key(period, begun, zone) == key
    assert periods.key(period, ended - timedelta(microseconds=1), zone) == key
    assert periods.key(period, ended, zone) > key
    assert periods.key(period, begun - timedelta(microseconds=1), zone) < key


@given(zones, moments, moments, st.sampled_from(Period))
def test_later_periods_sort_behind_earlier_ones(zone, one, other, period) -> None:
    early, late = sorted([one, other])
    assert periods.key(period, early, zone) <= periods.key(period, late, zone)


@given(zones, moments, st.timedeltas(timedelta(), timedelta(days=5)))
def test_pieces_make_up_the_span_and_none_reaches_over_midnight(zone, begun, span) -> None:
    ended = begun + span
    pieces = list(periods.cuts(begun, ended, zone, ZONES[0]))
    assert [piece[0] for piece in pieces] == ([begun, *(p[1] for p in pieces[:-1])] if span else [])
    assert not span or pieces[-1][1] == ended
    for start, end in pieces:
        last = end - timedelta(microseconds=1)
        for place in (zone, ZONES[0]):
            assert start.astimezone(place).date() == last.astimezone(place).date()


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("America/Havana", date(2026, 3, 8), 23),
        ("America/Havana", date(2026, 11, 1), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
    ],
)
def test_days_on_which_clocks_change_have_the_hours_that_they_have(zone, day, hours) -> None:
    place = ZoneInfo(zone)
    begun = periods.midnight(day, place)
    ended = periods.midnight(day + timedelta(days=1), place)
    assert ended - begun == timedelta(hours=hours)
    assert begun.astimezone(place).date() == day


def test_a_month_is_that_of_the_calendar_and_no_thirty_days() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    last_evening = datetime(2026, 1, 31, 22, 59, tzinfo=UTC)
    assert periods.key(Period.MONTH, last_evening, berlin) == "2026-01"
    assert periods.key(Period.MONTH, last_evening + timedelta(minutes=1), berlin) == "2026-02"
    assert periods.bounds(Period.MONTH, last_evening, berlin) == (
        datetime(2025, 12, 31, 23, tzinfo=UTC),
        datetime(2026, 1, 31, 23, tzinfo=UTC),
    )
