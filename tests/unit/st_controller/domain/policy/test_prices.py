"""What a slot costs, and the most that one can which a request may get."""

from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy.prices import Price, PriceList

AT = datetime(2026, 1, 1, tzinfo=UTC)


def prices(**micros: int) -> PriceList:
    return listed({(name, "*"): price for name, price in micros.items()})


def listed(table: dict[tuple[str, str], int]) -> PriceList:
    return PriceList.at(AT, [Price(a, p, micros, AT) for (a, p), micros in table.items()])


def test_the_most_specific_price_counts() -> None:
    known = listed(
        {("*", "*"): 1, ("a100*", "*"): 4, ("*", "aws"): 2, ("a100-80gb", "*"): 5,
         ("a100*", "aws"): 6}
    )  # fmt: skip
    assert known.of("cpu", "static") == 1
    assert known.of("cpu", "aws") == 2
    assert known.of("A100-40GB", "static") == 4
    assert known.of("a100-40gb", "AWS") == 6
    assert known.of("a100-80gb", "aws") == 5
    assert PriceList().of("cpu", "static") == 0


def test_a_price_holds_from_its_moment_on() -> None:
    later = AT + timedelta(days=1)
    table = [Price("*", "*", 1, AT), Price("*", "*", 2, later)]
    assert PriceList.at(AT, table).of("cpu", "static") == 1
    assert PriceList.at(later, table).of("cpu", "static") == 2
    assert PriceList.at(AT - timedelta(days=1), table).of("cpu", "static") == 0


def test_a_request_is_taken_for_the_dearest_that_it_may_get() -> None:
    known = listed({("*", "*"): 1, ("a100*", "*"): 4, ("h100*", "*"): 9, ("cpu", "*"): 0})
    assert known.dearest("*", "*") == 9
    assert known.dearest("cpu|a100*", "*") == 4
    assert known.dearest("cpu", "*") == 0  # not the price of everything
    assert known.dearest("CPU | a?00-80gb", "*") == 4
    assert known.dearest("l40s", "static") == 1


names = st.text("ab1-", max_size=5)
globs = st.text("ab1*?", max_size=5)


@given(
    st.dictionaries(st.tuples(globs, globs), st.integers(0, 99), max_size=5), globs, globs,
    names, names,
)  # fmt: skip
def test_no_slot_that_a_request_may_get_is_dearer_than_was_said(
    table, accelerators, provider, name, where
) -> None:
    known = listed(table)
    if fnmatchcase(name, accelerators) and fnmatchcase(where, provider):
        assert known.of(name, where) <= known.dearest(accelerators, provider)
