"""Points of several attempts become one curve."""

import pytest

from st_shared.curves import as_one_curve


def curve(*points):
    return as_one_curve(points, lambda point: point)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1, 5, 1), (1, 10, 2)], [(1, 5, 1), (1, 10, 2)]),
        (
            [(1, 5, 1), (1, 10, 2), (1, 15, 3), (2, 10, 1), (2, 15, 2)],
            [(1, 5, 1), (2, 10, 1), (2, 15, 2)],
        ),
        ([(1, 5, 1), (1, 20, 2), (2, 10, 1)], [(1, 5, 1), (2, 10, 1)]),
        ([(1, 5, 1), (1, 5, 2), (2, 10, 1)], [(1, 5, 1), (1, 5, 2), (2, 10, 1)]),
        ([(2, 5, 1), (1, 5, 1), (1, 10, 2)], [(2, 5, 1)]),
    ],
    ids=["none", "one attempt", "resumed", "not as far again", "two lines a step", "begun anew"],
)
def test_from_its_first_step_on_a_later_attempt_alone_counts(points, expected):
    assert curve(*points) == expected
