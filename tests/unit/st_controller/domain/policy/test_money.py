from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy import money

spans = st.integers(0, 10**13).map(lambda count: timedelta(microseconds=count))


@given(st.integers(0, money.LARGEST))
def test_micro_units_survive_being_written_as_a_number(amount: int) -> None:
    assert money.micros(money.decimal(amount)) == amount


def test_an_amount_is_written_without_needless_zeros() -> None:
    assert f"{money.decimal(12_500_000):f}" == "12.5"
    assert f"{money.decimal(100_000_000):f}" == "100"
    assert f"{money.decimal(0):f}" == "0"


@pytest.mark.parametrize("wrong", ["0.0000001", "-1", "1000000000.1", "NaN", "Infinity"])
def test_what_is_no_amount_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="give a number"):
        money.micros(Decimal(wrong))


@given(st.integers(0, 10**12), st.lists(spans, min_size=1, max_size=8))
def test_parts_of_a_time_cost_what_the_whole_does(rate: int, parts: list[timedelta]) -> None:
    total, parted = timedelta(), 0
    for part in parts:
        before, total = money.cost(rate, total), total + part
        parted += money.cost(rate, total) - before
    assert parted == money.cost(rate, total)
    assert money.cost(3_600_000_000, timedelta(microseconds=1)) == 1


def test_an_hour_costs_the_price_of_an_hour() -> None:
    assert money.cost(5_490_000, timedelta(hours=1)) == 5_490_000
    assert money.cost(5_490_000, timedelta(minutes=20)) == 1_830_000
    assert money.slot_milliseconds(8, timedelta(seconds=2.5)) == 20_000
