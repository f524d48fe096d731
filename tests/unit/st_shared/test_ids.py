import re

from st_shared.ids import new_id


def test_shape() -> None:
    assert re.fullmatch(r"job_[0-9a-hjkmnp-tv-z]{26}", new_id("job"))


def test_later_ids_sort_later() -> None:
    early = new_id("job", milliseconds=1_000, random=lambda count: b"\xff" * count)
    late = new_id("job", milliseconds=1_001, random=lambda count: b"\x00" * count)

    assert early < late


def test_ids_differ() -> None:
    assert len({new_id("job") for _ in range(1000)}) == 1000
