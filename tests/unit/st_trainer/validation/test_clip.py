"""CLIP score against the library's own words, on pictures of the size that the model sees."""

import pytest
import torch
from fixtures.tiny_clip import make_clip
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

from st_shared.spec.validation import ClipSpec
from st_trainer.validation.clip import ClipScore

CAPTIONS = ["a house by the sea", "a red square"]


@pytest.fixture
def folder(base_folder, tmp_path):
    make_clip(tmp_path / "clip", base_folder("sd1"))
    return tmp_path / "clip"


def pictures():
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)


def cosines(folder, images, captions):
    """100 times each, of the library's model, tokenizer and preparation of pictures."""
    model = CLIPModel.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)(captions, padding=True, return_tensors="pt")
    prepare = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    pixels = prepare(list(images), return_tensors="pt").pixel_values
    with torch.no_grad():
        seen = model(**tokens, pixel_values=pixels)
    scores = 100 * seen.logits_per_image / model.logit_scale.exp()
    return scores.diagonal().clamp(min=0).tolist()


def test_it_is_100_times_the_cosine_of_a_picture_and_its_own_caption(folder):
    score, images = ClipScore(ClipSpec(model=str(folder)), torch.device("cpu")), pictures()
    found = [*score(list(images), CAPTIONS), *score(list(images), CAPTIONS[::-1])]
    expected = cosines(folder, images, CAPTIONS) + cosines(folder, images, CAPTIONS[::-1])
    assert found == pytest.approx(expected, abs=1e-3)
    assert len({round(each, 1) for each in expected}) == 4  # picture and caption both count


def test_a_video_has_the_mean_of_its_frames(folder):
    score, images = ClipScore(ClipSpec(model=str(folder)), torch.device("cpu")), pictures()
    single = score(list(images), CAPTIONS[1:] * 2)
    video = torch.stack([images[0], *images], dim=1)  # (C, F, H, W)
    assert score([video], CAPTIONS[1:]) == [pytest.approx((2 * single[0] + single[1]) / 3)]
    assert min(single) > 1
    assert single[0] != pytest.approx(single[1])
