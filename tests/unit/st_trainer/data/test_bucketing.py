from collections import Counter

import pytest

from st_shared.spec import SpecProblems, TrainingSpec, validate_job
from st_trainer.data.bucketing import described, in_buckets
from st_trainer.data.images import Images
from st_trainer.data.medium import Bucket
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos

SD1 = {"family": "sd1", "base": "b", "config": {"resolution": 64}}
WAN = {"family": "wan", "base": "b", "config": {"height": 64, "width": 128, "frames": 9}}
SONGS = {"family": "ace_step", "base": "b", "config": {"seconds": 30}}


def spec_of(model, **buckets):
    document = {"model": model, "datasets": [{"path": "a"}], "buckets": buckets}
    return TrainingSpec.model_validate(document)


def images(**buckets):
    return in_buckets(Images(3, 64, 64), spec_of(SD1, **buckets))


def videos(**buckets):
    return in_buckets(Videos(9, 64, 128, 8), spec_of(WAN, **buckets))


def test_sizes_have_one_area_unless_asked_otherwise():
    assert images(step=16, max_aspect=1.7).buckets == ((64, 64), (80, 48), (48, 80))
    assert images(step=32, measure="pixel", max_aspect=2).buckets == (
        (64, 64), (96, 64), (64, 96), (128, 64), (64, 128),
    )  # fmt: skip
    assert images(enabled=False).buckets == ()


def test_an_area_may_be_given_in_megapixels():
    found = images(measure="area", megapixels=1.0, step=64)
    assert found.buckets[0] == (1000, 1000)
    assert all(abs(height * width - 1e6) < 5e4 for height, width in found.buckets)
    assert images(measure="area", megapixels=1.0, enabled=False).buckets == ((1000, 1000),)


def test_of_all_sizes_only_the_nearest_to_given_aspects_are_left():
    assert images(step=8, aspects=[1.0, 1.6]).buckets == ((64, 64), (48, 80))


def test_videos_get_sizes_of_their_own_area_whose_sides_fit():
    sizes = videos(step=16, max_aspect=2).buckets
    assert sizes[0] == (64, 128)
    assert (128, 64) in sizes
    assert all(side % 16 == 0 for size in sizes for side in size)
    assert all(abs(height * width - 64 * 128) < 16 * max(height, width) for height, width in sizes)
    assert len(set(sizes)) == len(sizes) > 3


def test_shorter_videos_and_sounds_are_wanted_only_when_asked_for():
    assert videos().frame_step is None
    assert videos(frames="shorter").frame_step == 4
    sounds = Sounds(30 * 48_000, 48_000)
    assert in_buckets(sounds, spec_of(SONGS)) == sounds
    cut = in_buckets(sounds, spec_of(SONGS, seconds=5, part="end"))
    assert (cut.step, cut.part) == (5 * 48_000, "end")


@pytest.mark.parametrize(
    ("counts", "medium", "expected"),
    [
        ({(3, 64, 80): 2, (3, 80, 64): 5}, Images(3, 64, 64), "images; 64x80: 5, 80x64: 2"),
        (
            {(3, 5, 64, 80): 2},
            Videos(9, 64, 80, 8),
            "width x height, frames: videos; 80",
        ),
        ({(2, 80): 2}, Sounds(160, 8), "1 buckets, seconds: sounds; 10: 2"),
    ],
)
def test_buckets_are_named_with_their_samples(counts, medium, expected):
    buckets = Counter({Bucket(shape): count for shape, count in counts.items()})
    assert expected in described(buckets, medium)


@pytest.mark.parametrize(
    ("model", "buckets", "said"),
    [
        (
            SONGS,
            {"crop": "random"},
            "buckets.crop means nothing for family ace_step",
        ),
        (SD1, {"frames": "shorter"}, "buckets.frames means nothing for family sd1"),
        (WAN, {"seconds": 3}, "buckets.seconds means nothing for family wan"),
        (SD1, {"measure": "area"}, "give megapixels with measure area"),
        (SD1, {"megapixels": 1}, "give megapixels with measure area, and only with it"),
        (SD1, {"aspects": [0]}, "from 0.1 to 10"),
    ],
)
def test_what_means_nothing_is_refused(model, buckets, said):
    job = {"name": "a", "training": {"model": model, "datasets": [{"path": "b"}]}}
    job["training"]["buckets"] = buckets
    with pytest.raises(SpecProblems, match=said):
        validate_job(job)


@pytest.mark.parametrize(
    ("model", "dataset", "said"),
    [
        (SONGS, {"only": {"min_side": 9}}, r"datasets\.0\.only means nothing for family ace_step"),
        (
            SD1,
            {"format": "csv", "columns": {"lyrics": "sung"}},
            r"columns\.lyrics means nothing for family sd1",
        ),
    ],
)
def test_what_a_dataset_of_another_kind_would_have_is_refused(model, dataset, said):
    training = {"model": model, "datasets": [{"path": "b", **dataset}]}
    with pytest.raises(SpecProblems, match=said):
        validate_job({"name": "a", "training": training})
