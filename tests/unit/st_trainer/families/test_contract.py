"""What each pretrained family promises, against Diffusers' own pipeline of it.

An oracle stands in for the network: it answers exactly, in the network's own convention, which
``fixtures.tiny`` states apart from our code. So a wrong sign, time, packing or scale is seen,
where random weights would hide it.
"""

import re
from pathlib import Path

import pytest
import torch
from fixtures.tiny import FAST, TINY

from st_shared.spec import AdapterSpec, ValidationSpec
from st_trainer.adapters.lora import Lora
from st_trainer.families.components import class_named
from st_trainer.families.registry import REGISTRY
from st_trainer.sampling import denoise, starting_noise

FAMILIES = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.families) for name in TINY
]
PROMPTS = ["a cat", "two red houses by the sea"]
STEPS = 4

pytestmark = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture
def tiny_denoiser(name, load_tiny):
    return load_tiny(name)


@pytest.fixture
def samples(tiny_denoiser):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, *tiny_denoiser.sample_shape, generator=generator) * 2 - 1


@pytest.fixture
def stock(name, base_folder):
    pipeline = class_named(REGISTRY[name].pipeline).from_pretrained(base_folder(name))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ours(denoiser, noise, guidance):
    settings = ValidationSpec(sampler_steps=STEPS, guidance=guidance)
    told = TINY[denoiser.family.name].told(denoiser)
    return denoise(denoiser, PROMPTS, noise, settings, told)


def test_a_base_is_frozen_and_evaluates(name, tiny_denoiser):
    parts = [tiny_denoiser.module, *tiny_denoiser.assets.values()]
    modules = [part for part in parts if isinstance(part, torch.nn.Module)]
    assert len(modules) >= 3
    assert not any(each.training for each in modules)
    assert not any(weight.requires_grad for each in modules for weight in each.parameters())


def test_prompts_are_encoded_as_the_stock_pipeline_does(name, tiny_denoiser, stock):
    found = tiny_denoiser.encode([*PROMPTS, ""])
    with torch.no_grad():
        expected = TINY[name].conditions(stock, [*PROMPTS, ""])
    assert set(expected) <= set(found)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-6, rtol=0)
        assert torch.allclose(tensor[0], tensor[1]) == (key in TINY[name].constant)


def test_latents_are_those_of_the_stock_pipeline_and_come_back(name, tiny_denoiser, stock, samples):
    seed = torch.Generator().manual_seed
    found = tiny_denoiser.latents(samples, seed(3))
    with torch.no_grad():
        expected = TINY[name].latents(stock, samples, seed(3))
        decoded = tiny_denoiser.samples(found)
        back = TINY[name].decode(stock, found)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert found.shape == (2, *tiny_denoiser.latent_shape)
    assert decoded.shape == samples.shape
    torch.testing.assert_close(decoded, back, atol=1e-5, rtol=0)


def test_with_an_oracle_the_loss_is_zero_at_every_time(name, tiny_denoiser, samples):
    objective, generator = tiny_denoiser.objective, torch.Generator().manual_seed(0)
    clean = tiny_denoiser.latents(samples, generator)
    tiny_denoiser.module.forward = TINY[name].oracle(clean)
    condition = tiny_denoiser.encode(PROMPTS) | TINY[name].told(tiny_denoiser)
    for share in (0.02, 0.3, 0.7, 0.98):
        times = objective.from_share(torch.tensor([share, 1 - share]))
        noise = torch.randn(clean.shape, generator=generator)
        noisy = objective.noisy(clean, noise, times)
        answer = tiny_denoiser.predict(noisy, times, condition)
        loss = objective.loss(answer, objective.target(clean, noise, times), times)
        assert loss.item() < 1e-8
        torch.testing.assert_close(objective.clean(answer, noisy, times), clean, atol=1e-3, rtol=0)


def test_with_an_oracle_both_samplers_arrive_at_the_clean_latents(
    name, tiny_denoiser, stock, samples
):
    clean = tiny_denoiser.latents(samples, torch.Generator().manual_seed(0))
    tiny_denoiser.module.forward = TINY[name].oracle(clean)
    getattr(stock, REGISTRY[name].denoiser).forward = TINY[name].oracle(clean)
    noise = starting_noise(2, tiny_denoiser.latent_shape, seed=5)
    found = ours(tiny_denoiser, noise, TINY[name].guidance)
    theirs = TINY[name].sample(stock, PROMPTS, noise, STEPS, TINY[name].guidance)
    torch.testing.assert_close(found, clean, atol=1e-3, rtol=0)
    torch.testing.assert_close(theirs, clean, atol=1e-3, rtol=0)


def test_our_samples_are_those_of_the_stock_pipeline(name, tiny_denoiser, stock):
    noise = starting_noise(2, tiny_denoiser.latent_shape, seed=5)
    found = ours(tiny_denoiser, noise, TINY[name].guidance)
    theirs = TINY[name].sample(stock, PROMPTS, noise, STEPS, TINY[name].guidance)
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


def load_into(stock, folder, family):
    """As users do: by the pipeline, or by its part where the pipeline has no loader."""
    file = "pytorch_lora_weights.safetensors"
    if hasattr(stock, "load_lora_weights"):
        stock.load_lora_weights(folder, weight_name=file)
    elif hasattr(part := getattr(stock, family.denoiser), "load_lora_adapter"):
        part.load_lora_adapter(folder, prefix=family.denoiser, weight_name=file)
    else:
        exec(recipe_of_the_guide(), {"pipeline": stock, "file": folder / file})


def recipe_of_the_guide():
    """The lines of the guide that load a LoRA where Diffusers has no loader."""
    guide = Path(__file__).parents[4] / "docs/guides/training.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    return next(block for block in blocks if "inject_adapter_in_model" in block)


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_a_lora_changes_the_stock_pipeline_as_it_changes_ours(
    name, layout, tiny_denoiser, stock, tmp_path
):
    noise = starting_noise(2, tiny_denoiser.latent_shape, seed=5)
    without = ours(tiny_denoiser, noise, TINY[name].guidance)
    spec = AdapterSpec(rank=4, alpha=6, layout=layout)
    adapter = woken(Lora(spec), tiny_denoiser)
    found = ours(tiny_denoiser, noise, TINY[name].guidance)
    adapter.write(tmp_path, tiny_denoiser, step=1)
    load_into(stock, tmp_path, REGISTRY[name])
    theirs = TINY[name].sample(stock, PROMPTS, noise, STEPS, TINY[name].guidance)
    assert (found - without).abs().max() > 1e-2
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", ["diffusers", "comfyui", "kohya"])
def test_training_goes_on_from_a_lora_of_any_layout(
    name, layout, tiny_denoiser, load_tiny, tmp_path
):
    if layout == "kohya" and not REGISTRY[name].kohya_modules:
        pytest.skip("has no layout of its own for Kohya")
    noise = starting_noise(2, tiny_denoiser.latent_shape, seed=5)
    spec = AdapterSpec(rank=4, alpha=6, layout=layout, rank_pattern={"to_q": 2})
    path = woken(Lora(spec), tiny_denoiser).write(tmp_path, tiny_denoiser, step=1)
    again = load_tiny(name)
    Lora(AdapterSpec(continue_from=str(path))).attach(again)
    guidance = TINY[name].guidance
    found, expected = (ours(each, noise, guidance) for each in (again, tiny_denoiser))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)  # a scale may be folded in


def woken(adapter, denoiser):
    """Attached, with random numbers in every matrix, so that it changes something."""
    adapter.attach(denoiser)
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in denoiser.module.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.3)
    denoiser.module.eval()
    return adapter
