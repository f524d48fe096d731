import pytest

from st_trainer.data.facts import SampleFacts


@pytest.mark.parametrize(
    ("original", "crop"),
    [
        ((512, 512), (0, 0)),
        ((768, 1024), (0, 85)),  # 512 x 682.7
        ((2000, 500), (768, 0)),  # 2048 x 512
        ((100, 50), (256, 0)),  # made larger: 1024 x 512
    ],
)
def test_a_picture_that_covers_the_size_is_cut_on_both_sides_alike(original, crop):
    found = SampleFacts.fitted(original, (512, 512))
    assert found == SampleFacts(original, crop, (512, 512))


def test_a_whole_picture_is_neither_resized_nor_cut():
    assert SampleFacts.whole(64, 32) == SampleFacts.fitted((64, 32), (64, 32))
    assert SampleFacts.whole(9) == SampleFacts((9,), (0,), (9,))
