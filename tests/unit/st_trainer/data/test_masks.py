import pytest
import torch
from PIL import Image

from st_trainer.data.content import Content
from st_trainer.data.images import Images
from st_trainer.data.masks import check_mask, read_mask
from st_trainer.data.medium import DamagedSampleError, UnreadableSampleError
from st_trainer.data.sounds import Sounds
from st_trainer.errors import BadDataError

IMAGES = Images(3, 4, 4)


@pytest.fixture
def mask(tmp_path):
    picture = Image.new("L", (4, 4), 0)
    picture.paste(255, (0, 0, 2, 4))
    picture.save(tmp_path / "a.mask.png")
    return Content.of_file(tmp_path / "a.mask.png")


def test_a_mask_is_read_as_shares(mask):
    check_mask(mask, IMAGES, (3, 4, 4))
    assert read_mask(mask, (4, 4))[0, 0].tolist() == [1, 1, 0, 0]


def test_in_a_segmentation_every_colour_counts_in_full(tmp_path):
    picture = Image.new("RGB", (4, 4), 0)
    picture.paste((0, 0, 90), (0, 0, 1, 4))
    picture.paste((40, 200, 0), (1, 0, 2, 4))
    picture.paste((3, 3, 3), (2, 0, 3, 4))
    picture.save(tmp_path / "a.png")
    found = read_mask(Content.of_file(tmp_path / "a.png"), (4, 4), kind="segmentation")
    assert found.shape == (1, 4, 4)
    assert found[0, 0].tolist() == [1, 1, 0, 0]


def test_nearly_black_is_black_up_to_what_lossy_files_make_of_it(tmp_path):
    picture = Image.new("RGB", (4, 4))
    for column, colour in enumerate([(8, 8, 8), (0, 9, 0), (9, 0, 8), (0, 0, 0)]):
        picture.paste(colour, (column, 0, column + 1, 4))
    picture.save(tmp_path / "a.png")
    found = read_mask(Content.of_file(tmp_path / "a.png"), (4, 4), kind="segmentation")
    assert found[0, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("kind", ["grey", "segmentation"])
def test_a_mask_is_cut_where_it_is_said(tmp_path, kind):
    picture = Image.new("L", (8, 2))
    picture.paste(255, (0, 0, 2, 2))
    picture.save(tmp_path / "a.png")
    content = Content.of_file(tmp_path / "a.png")
    cuts = [read_mask(content, (2, 2), (0.5, left), kind).mean() for left in (0, 0.5, 1)]
    assert cuts == [1, 0, 0]


def test_without_masks_everything_counts():
    assert torch.equal(read_mask(None, (2, 3)), torch.ones(1, 2, 3))


def test_a_missing_or_damaged_mask_is_named(mask, tmp_path):
    with pytest.raises(UnreadableSampleError, match=r"no mask: a_m\.png is missing"):
        check_mask(Content.of_file(tmp_path / "a_m.png"), IMAGES, (3, 4, 4))
    (tmp_path / "a.mask.png").write_bytes(b"broken")
    with pytest.raises(UnreadableSampleError, match="not a PNG") as found:
        check_mask(mask, IMAGES, (3, 4, 4))
    assert not isinstance(found.value, DamagedSampleError)  # or its sample might be deleted
    with pytest.raises(BadDataError, match=r"a\.mask\.png changed during the run"):
        read_mask(mask, (4, 4))


def test_sounds_have_no_masks(mask):
    with pytest.raises(UnreadableSampleError, match="masks are for pictures and videos"):
        check_mask(mask, Sounds(length=8, rate=8000), (2, 8))
