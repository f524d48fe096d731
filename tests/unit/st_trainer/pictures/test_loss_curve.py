import numpy as np
import pytest

from st_trainer.pictures.ink import ACCENT
from st_trainer.pictures.loss_curve import loss_curve, smoothed, ticks


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 2, 6, [0, 0.5, 1, 1.5, 2]),
        (0, 600, 8, [0, 100, 200, 300, 400, 500, 600]),
        (0, 0.0031, 6, [0, 0.001, 0.002, 0.003]),
        (-1, 1, 4, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(low, high, most, expected):
    assert ticks(low, high, most) == pytest.approx(expected)


def test_smoothing_keeps_a_line_and_calms_noise():
    line = [(step, 2.0 - step / 100) for step in range(100)]
    assert [loss for _, loss in smoothed(line)] == pytest.approx([loss for _, loss in line])
    zigzag = [(step, 1.0 + (-1) ** step) for step in range(100)]
    assert all(abs(loss - 1) < 0.2 for _, loss in smoothed(zigzag)[10:-10])


def test_the_curve_falls_from_the_upper_left_to_the_lower_right():
    points = [(step, 2.0 * 0.9**step) for step in range(1, 61)]
    sheet = np.asarray(loss_curve(points, 60)).astype(int)
    blue = np.abs(sheet - ACCENT).sum(axis=2) < 40
    heights = [np.nonzero(blue[:, column])[0].mean() for column in (100, 300, 500, 800)]
    assert heights == sorted(heights)
    assert heights[-1] - heights[0] > 200


@pytest.mark.parametrize(
    "points", [[], [(1, 0.5)], [(1, 0.0), (2, 0.0)], [(1, -3.0), (2, 4e9)], [(1, 7.0)] * 2]
)
def test_odd_histories_are_drawn_too(points):
    assert loss_curve(points, 2).size == (960, 540)
