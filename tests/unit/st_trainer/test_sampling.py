from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from st_shared.spec import PixelDitConfig, ValidationSpec
from st_shared.spec.validation import PromptSpec
from st_trainer.families.family import Denoiser
from st_trainer.families.pixel_dit import PixelDitFamily
from st_trainer.sampling import as_bytes, denoise, draw, draw_prompts, starting_noise
from st_trainer.validation.samples import draw_all

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


@pytest.fixture
def real():
    torch.manual_seed(0)
    family = PixelDitFamily()
    module = family.build(CONFIG, ASSETS)
    with torch.no_grad():
        for weight in module.parameters():  # a new model answers zero
            weight.normal_(0, 0.2)
    return Denoiser(family, CONFIG, ASSETS, module)


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


def prompts_of(*told):
    return [PromptSpec.model_validate({"prompt": "cat"} | each) for each in told]


def test_a_prompt_with_a_seed_starts_from_its_noise_wherever_it_stands(real):
    settings = ValidationSpec(sampler_steps=3, seed=4)
    first, seeded, third = draw_prompts(real, prompts_of({}, {"seed": 9}, {}), settings)
    [alone] = draw_prompts(real, prompts_of({"seed": 9}), settings)
    [as_first] = draw_prompts(real, prompts_of({}), settings.model_copy(update={"seed": 9}))
    assert torch.equal(seeded, alone)
    assert torch.equal(seeded, as_first)
    [again, _, there] = draw_prompts(real, prompts_of({}, {}, {}), settings)
    assert torch.equal(first, again)
    assert torch.equal(third, there)
    assert not torch.equal(third, seeded)


def test_each_prompt_is_drawn_with_its_own_guidance_and_away_from_its_own_negative(oracle):
    told = [{}, {"guidance": 1}, {"negative": "dog"}, {"negative": "dog", "guidance": 1.5}]
    settings = ValidationSpec(sampler_steps=4, guidance=2)
    found = draw_prompts(oracle, prompts_of(*told), settings)
    null, cat, dog = (oracle.family.images[word] for word in (0, 3, 4))
    expected = [2 * cat - null, cat, 2 * cat - dog, 1.5 * cat - 0.5 * dog]
    for drawn, image in zip(found, expected, strict=True):
        assert (drawn.int() - as_bytes(image).int()).abs().max() <= 1


def test_what_is_trained_counts_as_often_as_each_prompt_says(oracle):
    """Told from the strength that is in force while the model answers."""
    strengths, seen, predict = [1.0], {}, oracle.family.predict

    @contextmanager
    def strengthened(strength):
        strengths.append(strength)
        yield
        strengths.pop()

    def spied(module, noisy, times, condition):
        word = condition["words"][0, 1].item()
        seen.setdefault(word, set()).add(strengths[-1])
        return predict(module, noisy, times, condition)

    oracle.family.predict = spied
    prompts = prompts_of({"adapter_strength": 0.5}, {"prompt": "dog", "adapter_strength": -2})
    settings = ValidationSpec(prompts=prompts, sampler_steps=2, guidance=1)
    draw_all(oracle, settings, strengthened)
    assert seen == {3: {0.5}, 4: {-2.0}}
    assert strengths == [1.0]


def test_each_prompt_is_drawn_at_every_resolution_and_one_with_its_own_at_that_alone(load_tiny):
    denoiser = load_tiny("sd1")
    settings = ValidationSpec(
        prompts=["a cat", {"prompt": "a dog", "resolution": "48x16"}],
        resolutions=["16x16", "32x16"],
        sampler_steps=1,
        guidance=1,
    )
    found = [(each.name, each.values.shape) for each in draw_all(denoiser, settings)]
    assert found == [
        ("a cat", (3, 16, 16)),
        ("a cat, 32x16", (3, 16, 32)),
        ("a dog, 48x16", (3, 16, 48)),
    ]
