import pytest

from st_shared.spec.dataset import FilterSpec
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.suitable import check_suitable

WIDE = SampleFacts.fitted((100, 300), (64, 128))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"min_side": 101}, "300x100 is smaller than only.min_side 101"),
        ({"max_side": 299}, "300x100 is larger than only.max_side 299"),
        ({"min_aspect": 3.1}, "300x100 is narrower than only.min_aspect 3.1"),
        ({"max_aspect": 2.9}, "300x100 is wider than only.max_aspect 2.9"),
    ],
)
def test_what_is_not_wanted_says_why(spec, reason):
    with pytest.raises(UnreadableSampleError, match=reason):
        check_suitable(WIDE, FilterSpec(**spec))


def test_what_would_be_enlarged_too_much_is_left_out():
    small = SampleFacts.fitted((32, 64), (64, 64))
    check_suitable(small, FilterSpec(max_upscale=2))
    with pytest.raises(UnreadableSampleError, match=r"32 would be enlarged 2\.00 times"):
        check_suitable(small, FilterSpec(max_upscale=1.9))


def test_at_the_bounds_all_is_wanted_and_sounds_always_are():
    spec = FilterSpec(min_side=100, max_side=300, min_aspect=3, max_aspect=3, max_upscale=1)
    check_suitable(WIDE, spec)
    check_suitable(SampleFacts((50,), (0,), (50,)), spec)
