import pytest
import torch
from PIL import Image

from st_trainer.data.images import Images
from st_trainer.data.masks import find_mask, read_mask
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.sounds import Sounds
from st_trainer.errors import BadDataError

IMAGES = Images(3, 4, 4)


@pytest.fixture
def masked(tmp_path):
    picture = Image.new("L", (4, 4), 0)
    picture.paste(255, (0, 0, 2, 4))
    picture.save(tmp_path / "a.mask.png")
    return tmp_path / "a.png"


def test_a_mask_is_found_beside_its_image_and_read_as_shares(masked):
    found = find_mask(masked, ".mask.png", IMAGES, (3, 4, 4))
    assert found == masked.with_name("a.mask.png")
    assert read_mask(found, (4, 4))[0, 0].tolist() == [1, 1, 0, 0]


def test_without_masks_everything_counts(masked):
    assert find_mask(masked, None, IMAGES, (3, 4, 4)) is None
    assert torch.equal(read_mask(None, (2, 3)), torch.ones(1, 2, 3))


def test_a_missing_or_damaged_mask_is_named(masked):
    with pytest.raises(UnreadableSampleError, match=r"no mask: a_m\.png is missing"):
        find_mask(masked, "_m.png", IMAGES, (3, 4, 4))
    mask = masked.with_name("a.mask.png")
    mask.write_bytes(b"broken")
    with pytest.raises(UnreadableSampleError, match="not a PNG"):
        find_mask(masked, ".mask.png", IMAGES, (3, 4, 4))
    with pytest.raises(BadDataError, match=r"a\.mask\.png changed during the run"):
        read_mask(mask, (4, 4))


def test_sounds_have_no_masks(masked):
    with pytest.raises(UnreadableSampleError, match="masks are for pictures and videos"):
        find_mask(masked, ".mask.png", Sounds(length=8, rate=8000), (2, 8))
