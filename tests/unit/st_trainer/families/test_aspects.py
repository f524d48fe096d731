"""Families whose images may have other aspects: what they promise for batches that are not square.

The oracle of the contract stands in for the network, so that rows and columns that are mixed up
are seen.
"""

import pytest
import torch
from fixtures.tiny import FAST, TINY

from st_shared.spec import FAMILIES, ValidationSpec
from st_trainer.sampling import denoise

NAMES = [name for name in TINY if FAMILIES[name].alignment and FAMILIES[name].media == "image"]
PROMPTS = ["a cat", "two red houses by the sea"]

pytestmark = [
    pytest.mark.parametrize(
        "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.families) for n in NAMES]
    ),
    pytest.mark.parametrize(("height", "width"), [(16, 32), (32, 16)]),
]


@pytest.fixture
def known(name, load_tiny, height, width):
    """A model that knows the latents of two images which are not square, and these latents."""
    denoiser = load_tiny(name)
    generator = torch.Generator().manual_seed(0)
    clean = denoiser.latents(torch.rand(2, 3, height, width, generator=generator), generator)
    denoiser.module.forward = TINY[name].oracle(clean)
    return denoiser, clean


def told(denoiser):
    return denoiser.encode(PROMPTS) | TINY[denoiser.family.name].told(denoiser)


def test_with_an_oracle_the_loss_is_zero(known):
    denoiser, clean = known
    objective = denoiser.objective
    times = objective.from_share(torch.tensor([0.1, 0.8]))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noisy = objective.noisy(clean, noise, times)
    answer = denoiser.predict(noisy, times, told(denoiser))
    assert objective.loss(answer, objective.target(clean, noise, times), times).item() < 1e-8


def test_with_an_oracle_the_sampler_arrives_at_the_clean_latents(known):
    denoiser, clean = known
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    before = TINY[denoiser.family.name].told(denoiser)
    found = denoise(denoiser, PROMPTS, noise, ValidationSpec(sampler_steps=3), before)
    torch.testing.assert_close(found, clean, atol=1e-3, rtol=0)


def test_the_network_takes_images_that_are_not_square(name, load_tiny, height, width):
    denoiser = load_tiny(name)
    square, count = denoiser.latent_shape, denoiser.family.tokens(denoiser.latent_shape)
    latents = torch.randn(2, square[0], square[1] * height // 16, square[2] * width // 16)
    times = denoiser.objective.from_share(torch.tensor([0.1, 0.8]))
    answer = denoiser.predict(latents, times, told(denoiser))
    assert answer.shape == latents.shape
    assert denoiser.tokens(latents) == 2 * count
