import pytest
import torch
from PIL import Image

from st_trainer.data.content import Content
from st_trainer.data.images import Images
from st_trainer.data.masks import check_mask, read_mask
from st_trainer.data.medium import UnreadableSampleError
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


def test_without_masks_everything_counts():
    assert torch.equal(read_mask(None, (2, 3)), torch.ones(1, 2, 3))


def test_a_missing_or_damaged_mask_is_named(mask, tmp_path):
    with pytest.raises(UnreadableSampleError, match=r"no mask: a_m\.png is missing"):
        check_mask(Content.of_file(tmp_path / "a_m.png"), IMAGES, (3, 4, 4))
    (tmp_path / "a.mask.png").write_bytes(b"broken")
    with pytest.raises(UnreadableSampleError, match="not a PNG"):
        check_mask(mask, IMAGES, (3, 4, 4))
    with pytest.raises(BadDataError, match=r"a\.mask\.png changed during the run"):
        read_mask(mask, (4, 4))


def test_sounds_have_no_masks(mask):
    with pytest.raises(UnreadableSampleError, match="masks are for pictures and videos"):
        check_mask(mask, Sounds(length=8, rate=8000), (2, 8))
