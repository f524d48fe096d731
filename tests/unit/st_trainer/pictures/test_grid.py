import numpy as np
import pytest

from st_trainer.pictures.grid import near_square, sample_grid
from st_trainer.pictures.ink import font, wrapped


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (10, 5), (12, 4), (16, 4), (7, 4)]
)
def test_columns_leave_few_cells_empty(count, columns):
    found = near_square(count)
    assert found >= 1
    assert -count % found <= -count % columns


def grid(count=4, channels=1, **options):
    values = np.arange(count, dtype=np.uint8) * 40 + 60
    images = np.broadcast_to(values[:, None, None, None], (count, channels, 8, 8)).copy()
    return sample_grid(images, [f"caption {i}" for i in range(count)], title="step 1", **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_is_enlarged_apart_from_its_neighbours(channels):
    sheet = np.asarray(grid(channels=channels, columns=4, scale=12))
    row = sheet[sheet.shape[0] // 2 - 10, :, 0]
    for value in (60, 100, 140, 180):
        (places,) = np.nonzero(row == value)
        assert len(places) == 96
        assert places[-1] - places[0] == 95
    assert (np.diff([np.nonzero(row == v)[0][0] for v in (60, 100, 140, 180)]) == 96 + 20).all()


def test_rows_follow_from_columns_and_captions_leave_ink_below_each_picture():
    sheet = np.asarray(grid(columns=2, scale=16))
    assert sheet.shape[0] > sheet.shape[1]
    for value in (60, 100, 140, 180):
        rows, columns = np.nonzero(sheet[:, :, 0] == value)
        below = sheet[rows.max() + 6 : rows.max() + 24, columns.min() : columns.max()]
        assert below.min() < 140


def test_pictures_of_any_size_fit(tmp_path):
    images = np.zeros((1, 3, 300, 300), np.uint8)
    sheet = sample_grid(images, ["x" * 500], title="t" * 300)
    assert sheet.width == 300 + 48


def test_long_captions_are_wrapped_and_cut():
    letters = font(13)
    lines = wrapped("a very long caption that goes on and on " * 5, letters, 100, 3)
    assert len(lines) == 3
    assert lines[2].endswith("…")
    assert all(letters.getlength(line) <= 100 for line in lines)
    assert wrapped("two words", letters, 200, 3) == ["two words"]
    assert wrapped("", letters, 200, 3) == []
