"""A cut keeps the box that it is told, as far as the picture and the wanted aspect allow."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from st_shared.spec import DatasetSpec, TrainingSpec
from st_trainer.data.boxes import Box, box_in
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import Images
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.reading import read_datasets
from st_trainer.data.videos import Videos
from st_trainer.recordings import write_video

FACE = Images(3, 16, 16, crop="face")
sides = st.integers(8, 400)


@given(st.data())
def test_a_box_that_fits_is_kept_and_else_its_middle(data):
    original, size = (data.draw(sides), data.draw(sides)), (data.draw(sides), data.draw(sides))
    left, right = sorted(data.draw(st.integers(0, original[1])) for _ in range(2))
    top, bottom = sorted(data.draw(st.integers(0, original[0])) for _ in range(2))
    assume(max(right, bottom) > 1)  # else they are shares
    box = Box(left, top, right, bottom)
    facts = SampleFacts.fitted(original, size, box.centring(original, size))
    scale = max(new / old for new, old in zip(size, original, strict=True))
    for place, (first, last) in enumerate(((top, bottom), (left, right))):
        start, end = facts.crop[place], facts.crop[place] + size[place]
        assert start >= 0
        assert end <= original[place] * scale + 0.5 + 1e-6
        if (last - first) * scale <= size[place]:
            assert start <= first * scale + 0.5 + 1e-6
            assert end >= last * scale - 0.5 - 1e-6
        else:
            middle = (first + last) / 2 * scale
            assert abs((start + end) / 2 - middle) <= 0.5 + 1e-6


@given(sides, sides, sides, sides, st.floats(0, 1), st.floats(0, 1))
def test_what_lies_beside_is_cut_by_the_same_share(height, width, rows, columns, x, y):
    """However large it is, it is cut where the sample was."""
    where = Box(x, y, x, y).centring((height, width), (rows, columns))
    facts = SampleFacts.fitted((height, width), (rows, columns), where)
    assert facts.centring == pytest.approx(where, abs=1e-9)
    assert SampleFacts.fitted((height, width), (rows, columns), facts.centring) == facts


@pytest.mark.parametrize(
    ("value", "box"),
    [
        ([1, 2, 3, 4], Box(1, 2, 3, 4)),
        ("[0.1, 0.2, 0.3, 0.4]", Box(0.1, 0.2, 0.3, 0.4)),
        ([[5, 6, 7, 8], [1, 9, 3, 10]], Box(1, 6, 7, 10)),
        ({"bbox": [1, 2, 3, 4]}, Box(1, 2, 3, 4)),
        ('{"bbox": [[1, 2, 3, 4]], "score": 1}', Box(1, 2, 3, 4)),
        (None, None), ("", None), (" \n", None), ([], None), ("null", None), ({"score": 1}, None),
    ],
)  # fmt: skip
def test_boxes_are_read_in_every_form(value, box):
    assert box_in(value, "here") == box


@pytest.mark.parametrize(
    "value",
    ["{", "1", 7, [1, 2, 3], [3, 2, 1, 4], [1, 4, 3, 2], [-1, 2, 3, 4], ["1", "2", "3", "4"],
     [[1, 2, 3, 4], [1, 2]], [1, 2, float("nan"), 4], "[" * 9_999, {"bbox": "x"}],
)  # fmt: skip
def test_what_is_no_box_is_told(value):
    with pytest.raises(
        UnreadableSampleError, match=r"here .*a box is \[left, top, right, bottom\]"
    ):
        box_in(value, "here")


def columns(width=48):
    """A picture whose columns differ, 16 high."""
    values = np.tile(np.arange(width, dtype=np.uint8) * 5, (16, 1))
    return Image.fromarray(np.stack([values] * 3, axis=-1))


@pytest.fixture
def folder(tmp_path):
    """Pictures with a box at the right, the same in shares, none, and what is no box."""
    folder = tmp_path / "set"
    folder.mkdir()
    boxes = {"a": [40, 2, 46, 9], "b": [40 / 48, 0.1, 46 / 48, 0.5], "c": None, "d": [1, 2]}
    for name, box in boxes.items():
        columns().save(folder / f"{name}.png")
        columns().convert("L").resize((96, 32)).save(folder / f"{name}.m.png")
        (folder / f"{name}.txt").write_text("columns")
        if box:
            (folder / f"{name}.box.json").write_text(json.dumps(box))
    return folder


def read(place, medium=FACE, root=None, **options):
    spec = DatasetSpec(path=str(place), **options)
    return read_datasets([spec], [place], medium, root=root)


def test_files_beside_pictures_say_where_these_are_cut(folder):
    reading = read(folder, box_suffix=".box.json", mask_suffix=".m.png")
    samples = reading.samples
    assert samples.names(range(3)) == ["a.png", "b.png", "c.png"]
    assert [facts.crop for facts in samples.facts(range(3))] == [(0, 32), (0, 32), (0, 16)]
    assert (samples.values([0])[0, 0, 0] * 127.5 + 127.5).round().tolist() == list(
        range(160, 240, 5)
    )
    masks = (samples.masks([0, 2]) * 255).round()[:, 0, 8]
    for mask, start in zip(masks.tolist(), (160, 80), strict=True):
        assert mask == pytest.approx(range(start, start + 80, 5), abs=3)
    assert samples.contents([0]) == samples.contents([1]) != samples.contents([2])
    (told,) = reading.skipped
    assert (told.name, told.text[:16]) == ("d.png", "d.box.json holds")
    assert ("centred,", 1, "c.png") in [(c.kind, c.count, c.name) for c in reading.changed]


def test_a_changed_box_is_another_sample(folder, tmp_path):
    before = read(folder, root=tmp_path / "index", box_suffix=".box.json").samples
    (folder / "a.box.json").write_text("[0, 0, 10, 10]")
    after = read(folder, root=tmp_path / "index", box_suffix=".box.json").samples
    assert [facts.crop for facts in after.facts(range(3))] == [(0, 0), (0, 32), (0, 16)]
    assert after.contents([0]) != before.contents([0])
    assert after.sha256 != before.sha256
    (folder / "c.box.json").write_text("[0, 0, 10, 10]")  # which was not there before
    again = read(folder, root=tmp_path / "index", box_suffix=".box.json").samples
    assert again.facts([2])[0].crop == (0, 0)


@pytest.mark.parametrize("form", [list, json.dumps])
def test_a_column_says_where_pictures_are_cut(folder, form):
    files = [path.read_bytes() for path in sorted(folder.glob("?.png"))][:3]
    boxes = [form(box) if box else None for box in ([40, 2, 46, 9], [0, 0, 9, 9], None)]
    table = pa.table({"image": files, "text": ["columns"] * 3, "face": boxes})
    pq.write_table(table, folder.parent / "table.parquet")
    spec = DatasetSpec(path=str(folder.parent), format="parquet", columns={"box": "face"})
    samples = read_datasets([spec], [folder.parent], FACE).samples
    assert [facts.crop for facts in samples.facts(range(3))] == [(0, 32), (0, 0), (0, 16)]


def test_frames_of_a_video_are_cut_alike(tmp_path):
    frames = np.zeros((3, 5, 32, 96), np.uint8)
    frames[:, :, :, 64:] = 200
    write_video(tmp_path / "a.mp4", frames, 8)
    (tmp_path / "a.txt").write_text("bright")
    (tmp_path / "a.box.json").write_text("[70, 0, 90, 20]")
    medium = Videos(5, 32, 32, 8, crop="face")
    samples = read(tmp_path, medium, box_suffix=".box.json").samples
    assert samples.facts([0])[0].crop == (0, 64)
    assert samples.values([0]).amin() > 0.4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "datasets.0 tells none, and nothing here looks for faces: give box_suffix"),
        ({"format": "csv"}, "nothing here looks for faces: give columns.box"),
        (
            {"crop": "center", "box_suffix": ".b.json"},
            "datasets.0.box_suffix means nothing without",
        ),
        ({"format": "csv", "box_suffix": ".b.json"}, "box_suffix means nothing for format csv"),
    ],
)
def test_boxes_and_crop_go_together(changes, told):
    crop = changes.pop("crop", "face")
    document = {
        "model": {"family": "sd1", "base": "here"},
        "datasets": [{"path": "x", **changes}],
        "buckets": {"crop": crop},
    }
    with pytest.raises(ValidationError, match=told):
        TrainingSpec.model_validate(document)
