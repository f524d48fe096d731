from datetime import UTC, datetime

import pytest

from st_controller.errors import InvalidRequest
from st_controller.services.paging import (
    LARGEST,
    decode_cursor,
    decode_place,
    encode_cursor,
    encode_place,
)

NOW = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)


def test_a_cursor_comes_back_as_it_went():
    assert decode_cursor(encode_cursor(NOW, "job_1")) == (NOW, "job_1")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "e30",  # an object
        "WzEsMl0",  # [1, 2]
        "WzFd",  # [1]
        "WyIyMDI2LTAxLTAxIiwgImpvYiJd",  # a day
        "\N{SNOWMAN}",
        encode_cursor(NOW.replace(tzinfo=None), "job_1"),
        encode_cursor(NOW, "job_1")[:-3],
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(cursor):
    with pytest.raises(InvalidRequest) as refused:
        decode_cursor(cursor)
    assert [error.field for error in refused.value.errors] == ["cursor"]


def test_a_place_comes_back_as_it_went():
    assert decode_place(encode_place(2, 174)) == (2, 174)


@pytest.mark.parametrize("place", [None, ""])
def test_without_a_place_a_list_begins_at_the_start(place):
    assert decode_place(place) == (0, 0)


@pytest.mark.parametrize(
    "place", ["1", "1:", ":1", "a:b", "-1:2", "1:2:3", f"1:{LARGEST + 1}", f"{10**20}:1"]
)
def test_a_place_that_is_not_ours_is_refused(place):
    with pytest.raises(InvalidRequest) as refused:
        decode_place(place)
    assert [error.field for error in refused.value.errors] == ["after"]
