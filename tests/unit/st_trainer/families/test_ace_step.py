"""What the contract does not say of ``ace_step``: lyrics, turbo, dropped captions, its files."""

import json
import shutil

import pytest
import torch
from fixtures.tiny import TINY
from safetensors.torch import load_file

from st_shared.spec import AdapterSpec, ModelSpec, SpecProblems, ValidationSpec, validate_job
from st_trainer.adapters.lora import Lora
from st_trainer.errors import BadSpecError
from st_trainer.sampling import denoise, starting_noise
from st_trainer.weights import load_base

pytestmark = pytest.mark.families
TEXTS = ["a song\n[verse]\nla la la\n\nle le", "drums"]


@pytest.fixture
def stock_at():
    from diffusers import AceStepPipeline

    def load(folder):
        pipeline = AceStepPipeline.from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


def test_the_lines_after_the_first_are_sung(load_tiny, base_folder, stock_at):
    denoiser = load_tiny("ace_step")
    expected = TINY["ace_step"].conditions(stock_at(base_folder("ace_step")), TEXTS)
    found = denoiser.encode(TEXTS)
    torch.testing.assert_close(found["text"], expected["text"], atol=1e-6, rtol=0)
    assert found["text"].shape[1] > denoiser.encode(["a song", "drums"])["text"].shape[1]


def test_a_dropped_caption_is_the_null_embedding(load_tiny):
    denoiser = load_tiny("ace_step")
    found = denoiser.encode(["a song", ""])["text"]
    null = denoiser.assets["condition_encoder"].null_condition_emb[0, 0]
    assert torch.equal(found[1], null.expand_as(found[1]))
    assert not torch.equal(found[0, 0], null)


def test_turbo_has_no_guidance(base_folder, tmp_path, stock_at):
    folder = tmp_path / "turbo"
    shutil.copytree(base_folder("ace_step"), folder)
    config = folder / "transformer/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_turbo": True}))
    spec = ModelSpec(family="ace_step", base=str(folder), config=TINY["ace_step"].config)
    denoiser = load_base(spec)
    noise = starting_noise(2, denoiser.latent_shape, seed=5)
    found = denoise(denoiser, TEXTS, noise, ValidationSpec(sampler_steps=3, guidance=7))
    theirs = TINY["ace_step"].sample(stock_at(folder), TEXTS, noise, 3, 1.0)
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


def test_a_file_for_comfyui_has_upstream_names_and_the_scale_in_its_matrices(load_tiny, tmp_path):
    denoiser = load_tiny("ace_step")
    adapter = Lora(AdapterSpec(rank=4, alpha=6, layout="comfyui"))
    adapter.attach(denoiser)
    with torch.no_grad():
        for name, weight in denoiser.module.named_parameters():
            if "lora_B" in name:
                weight.fill_(1.0)
    found = load_file(adapter.write(tmp_path, denoiser, step=1))
    key = "base_model.model.layers.0.self_attn.q_proj.lora_B.weight"
    assert found[key].unique().tolist() == [1.5]
    assert not any(name.endswith("alpha") for name in found)


def test_a_vae_of_another_rate_is_refused(base_folder):
    base = str(base_folder("ace_step"))
    with pytest.raises(BadSpecError, match=r"config\.sample_rate: 48000, but the VAE .* has 88"):
        load_base(ModelSpec(family="ace_step", base=base, config={"seconds": 3}))


def test_sounds_have_no_masks():
    training = {
        "model": {"family": "ace_step", "base": "somewhere"},
        "datasets": [{"path": "songs", "mask_suffix": ".mask.png"}],
    }
    with pytest.raises(SpecProblems, match=r"mask_suffix is for pictures and videos"):
        validate_job({"name": "a", "training": training})


def test_a_shorter_sound_is_trained_on(load_tiny):
    denoiser = load_tiny("ace_step")
    generator = torch.Generator().manual_seed(0)
    channels, length = denoiser.latent_shape
    sounds = torch.rand(2, 2, denoiser.sample_shape[-1] // 2, generator=generator)
    clean = denoiser.latents(sounds, generator)
    assert clean.shape == (2, channels, length // 2)
    times = denoiser.objective.from_share(torch.tensor([0.1, 0.8]))
    answer = denoiser.predict(clean, times, denoiser.encode(["a", "b"]))
    assert answer.shape == clean.shape
