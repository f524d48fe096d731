"""Each sample of a run has what its own dataset says."""

import numpy as np
import pytest
from PIL import Image

from st_shared.spec import DatasetSpec
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.data.sampler import ShuffledSampler

SETTINGS = (
    {"repeats": 3},
    {"regularisation": True, "captions": {"dropout": 0.75}},
    {"slider_strength": -2.0, "probability": 0.5, "captions": {"dropout": 0.0}},
)


@pytest.fixture
def samples(tmp_path):
    """Two of the first dataset, three of the second, four of the third; all of one shape."""
    specs = []
    for number, settings in enumerate(SETTINGS):
        folder = tmp_path / str(number)
        folder.mkdir()
        for index in range(number + 2):
            Image.new("L", (4, 4), 20 * index).save(folder / f"{index}.png")
            (folder / f"{index}.txt").write_text("".join(f"caption {n}\n" for n in range(9)))
        captions = {"lines": "each"} | settings.get("captions", {})
        specs.append(DatasetSpec(path=str(folder), **settings | {"captions": captions}))
    return read_datasets(specs, [tmp_path / str(n) for n in range(3)], Images(1, 4, 4)).samples


def test_each_has_the_settings_of_its_dataset(samples):
    every = range(9)
    assert samples.regularised(every) == [False] * 2 + [True] * 3 + [False] * 4
    assert samples.caption_dropout(every, 0.1) == [0.1] * 2 + [0.75] * 3 + [0.0] * 4
    assert [samples.strength([index]) for index in every] == [1.0] * 5 + [-2.0] * 4
    assert samples.repeats.tolist() == [3] * 2 + [1] * 7
    assert samples.names(every) == [f"{n}.png" for count in (2, 3, 4) for n in range(count)]


def test_an_epoch_holds_each_as_often_as_its_dataset_says(samples):
    sampler = ShuffledSampler(samples.repeats, 7, None, samples.buckets, samples.shares)
    seen = np.zeros((6, 9), int)
    for epoch in seen:
        for _ in range(2 * 3 + 3 + 4 // 2):
            epoch[sampler.take(1)] += 1
    assert (seen[:, :2] == 3).all()
    assert (seen[:, 2:5] == 1).all()
    assert (seen[:, 5:].sum(1) == 2).all()
    assert (seen[:, 5:].sum(0) > 0).all()  # others each time


def test_strengths_are_not_mixed_in_a_batch(samples):
    sampler = ShuffledSampler(samples.repeats, 7, None, samples.buckets, samples.shares)
    for _ in range(20):
        assert len({index >= 5 for index in sampler.take(3)}) == 1


def test_captions_are_drawn_for_each_place_by_itself(samples):
    drawn = samples.captions_at([0] * 12, (5, 1))
    assert len(set(drawn)) > 3
    assert samples.captions_at([0] * 12, (5, 1)) == drawn
    assert samples.captions_at([0] * 12, (5, 2)) != drawn


@pytest.mark.parametrize(
    ("kind", "shares"), [("grey", [0, 60 / 255, 1]), ("segmentation", [0, 1, 1])]
)
def test_masks_are_read_as_their_dataset_says(tmp_path, kind, shares):
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a")
    mask = np.array([[0, 60, 255]] * 3, np.uint8)
    Image.fromarray(mask).save(tmp_path / "a.m.png")
    spec = DatasetSpec(path=str(tmp_path), mask_suffix=".m.png", mask_kind=kind)
    samples = read_datasets([spec], [tmp_path], Images(1, 3, 3)).samples
    assert samples.masks([0])[0, 0, 0].tolist() == pytest.approx(shares)
