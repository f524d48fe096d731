import math

from st_client.sparkline import sparkline


def test_a_curve_goes_from_highest_to_lowest_block():
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert sparkline([1, 1, 1]) == "▅▅▅"
    assert sparkline([]) == ""


def test_long_curves_are_averaged_to_the_width():
    assert sparkline([0, 2, 10, 12], width=2) == "▁█"
    assert len(sparkline(list(range(1000)), width=60)) == 60


def test_what_is_not_finite_is_marked():
    assert sparkline([1.0, math.nan, 2.0]) == "▁!█"
