import pytest

from st_trainer.data.buckets import bucket_sizes, nearest


@pytest.mark.parametrize(("side", "step"), [(1024, 64), (512, 32), (512, 64), (520, 8), (16, 8)])
@pytest.mark.parametrize("max_aspect", [1, 1.5, 2, 4])
def test_buckets_have_about_one_area_and_sides_that_fit(side, step, max_aspect):
    sizes = bucket_sizes(side, step, max_aspect)
    assert sizes[0] == (side, side)
    assert len(set(sizes)) == len(sizes)
    assert {(width, height) for height, width in sizes} == set(sizes)
    for height, width in sizes:
        assert (height - side) % step == 0
        assert (width - side) % step == 0
        assert max(height, width) <= max_aspect * min(height, width)
        assert abs(height * width - side * side) <= step / 2 * max(height, width)


def test_more_aspect_gives_more_buckets_and_1_squares_alone():
    counts = [len(bucket_sizes(1024, 64, aspect)) for aspect in (1, 1.2, 2, 3)]
    assert counts[0] == 1
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1024, 1024, (1024, 1024)),
        (7, 7, (1024, 1024)),
        (1000, 1010, (1024, 1024)),
        (3000, 2000, (1280, 832)),
        (2000, 3000, (832, 1280)),
        (10, 1000, (768, 1408)),
    ],
)
def test_an_image_goes_to_the_nearest_aspect(height, width, expected):
    assert nearest(bucket_sizes(1024, 64, 2), height, width) == expected


def test_between_two_the_first_is_taken():
    assert nearest([(8, 8), (4, 16)], 8, 16) == (8, 8)
