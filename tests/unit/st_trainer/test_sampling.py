from dataclasses import replace

import pytest
import torch
from torch import nn

from st_shared.spec import PixelDitConfig, ValidationSpec
from st_trainer.families.family import Denoiser
from st_trainer.families.pixel_dit import PixelDitFamily
from st_trainer.sampling import as_bytes, denoise, draw, starting_noise

CONFIG = PixelDitConfig(image_size=4, width=16, depth=1, heads=2, caption_length=2)
ASSETS = {"vocabulary": ["cat", "dog"]}


class Oracle(PixelDitFamily):
    """Knows the clean image of each caption: velocity ``(x_t - x_0) / t``."""

    def __init__(self, images):
        self.images = images
        self.calls = 0

    def predict(self, module, noisy, times, condition):
        self.calls += 1
        ids = condition["words"][:, 1].tolist()
        clean = torch.stack([self.images[word] for word in ids])
        return (noisy - clean) / times.view(-1, 1, 1, 1)


@pytest.fixture
def oracle():
    torch.manual_seed(0)
    images = {word: torch.rand(1, 4, 4) * 2 - 1 for word in (0, 3, 4)}
    return Denoiser(Oracle(images), CONFIG, ASSETS, nn.Linear(1, 1))


@pytest.mark.parametrize("steps", [1, 7, 24])
@pytest.mark.parametrize(("guidance", "weights"), [(1, (1, 0)), (0, (0, 1)), (3, (3, -2))])
def test_with_an_oracle_the_sampler_arrives_at_the_clean_image(oracle, steps, guidance, weights):
    settings = ValidationSpec(sampler_steps=steps, guidance=guidance)
    noise = starting_noise(2, (1, 4, 4), seed=1)
    found = denoise(oracle, ["cat", "dog"], noise, settings)
    images = oracle.family.images
    for image, word in zip(found, (3, 4), strict=True):
        expected = weights[0] * images[word] + weights[1] * images[0]
        torch.testing.assert_close(image, expected, atol=1e-3, rtol=0)
    assert oracle.family.calls == steps


def test_the_noise_of_a_picture_depends_on_seed_and_place_alone():
    few, many = starting_noise(2, (1, 4, 4), seed=7), starting_noise(9, (1, 4, 4), seed=7)
    assert torch.equal(few, many[:2])
    assert not torch.equal(few, starting_noise(2, (1, 4, 4), seed=8))
    assert not torch.equal(few[0], few[1])


def test_more_captions_than_pass_at_once_are_all_drawn(oracle):
    captions = ["cat", "dog"] * 50
    drawn = draw(oracle, captions, ValidationSpec(sampler_steps=2, guidance=1))
    assert drawn.shape == (100, 1, 4, 4)
    assert torch.equal(drawn[98], as_bytes(oracle.family.images[3]))
    assert torch.equal(drawn[99], as_bytes(oracle.family.images[4]))


def test_drawing_is_repeatable_with_a_real_model():
    torch.manual_seed(0)
    family = PixelDitFamily()
    denoiser = Denoiser(family, CONFIG, ASSETS, family.build(CONFIG, ASSETS))
    settings = ValidationSpec(sampler_steps=3, seed=4)
    first = draw(denoiser, ["cat"], settings)
    assert torch.equal(first, draw(replace(denoiser), ["cat"], settings))
    assert first.dtype == torch.uint8


def test_values_outside_the_range_are_clipped():
    assert as_bytes(torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]
