"""Gradients of one training step against a plain loop on Diffusers' own modules."""

import pytest
import torch
from diffusers import DDPMScheduler, FluxPipeline
from PIL import Image

from st_shared.spec import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.data.folder import read_folders
from st_trainer.families.registry import REGISTRY
from st_trainer.loop import batch_loss
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

PIXELS = 16
CONFIGS = {
    "sd1": {"resolution": PIXELS},
    "sdxl": {"resolution": PIXELS},
    "flux": {"resolution": PIXELS, "caption_length": 12},
}


@pytest.fixture
def session_of(base_folder, tmp_path):
    for index, colour in enumerate([(200, 30, 60), (10, 90, 240)]):
        Image.new("RGB", (PIXELS, PIXELS), colour).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"colour {index}")

    def make(family, **changes):
        document = {
            "model": {
                "family": family,
                "base": str(base_folder(family)),
                "config": CONFIGS[family],
            },
            "datasets": [{"path": str(tmp_path)}],
            "adapter": {"kind": "full"},
            "ema": {"enabled": False},
        }
        spec = TrainingSpec.model_validate(document | changes)
        denoiser = open_denoiser(spec, list)
        size = REGISTRY[family].sample_shape(denoiser.config)[1]
        samples = read_folders(spec.datasets, [tmp_path], size, 3).samples
        return Session(spec, samples, denoiser)

    return make


def drawn(session, count=2):
    """The random numbers of a step, in the order in which a step draws them."""
    generator = torch.Generator().manual_seed(session.spec.seed)
    vae = session.denoiser.assets["vae"]
    with torch.no_grad():
        posterior = vae.encode(session.samples.pixels([0, 1])).latent_dist
        clean = posterior.sample(generator)
    shift, scale = vae.config.shift_factor or 0, vae.config.scaling_factor
    return (clean - shift) * scale, torch.randn(clean.shape, generator=generator), generator


def reference_sd1(session):
    unet, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    times = (torch.rand(2, generator=generator) * 1000).long()
    text = _clip(assets, ["colour 0", "colour 1"]).last_hidden_state
    answer = unet(scheduler.add_noise(clean, noise, times), times, text).sample
    return (answer - noise).square().mean()


def reference_sdxl(session):
    unet, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    times = (torch.rand(2, generator=generator) * 1000).long()
    ids = assets["tokenizer"](
        ["colour 0", "colour 1"], padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        first = assets["text_encoder"](ids, output_hidden_states=True)
        second = assets["text_encoder_2"](ids, output_hidden_states=True)
    answer = unet(
        scheduler.add_noise(clean, noise, times),
        times,
        torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1),
        added_cond_kwargs={
            "text_embeds": second.text_embeds,
            "time_ids": torch.tensor([[PIXELS, PIXELS, 0, 0, PIXELS, PIXELS]] * 2),
        },
    ).sample
    return (answer - noise).square().mean()


def reference_flux(session):
    transformer, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    times = torch.randn(2, generator=generator).sigmoid()
    noisy = (1 - times.view(-1, 1, 1, 1)) * clean + times.view(-1, 1, 1, 1) * noise
    captions = ["colour 0", "colour 1"]
    ids = assets["tokenizer_2"](
        captions, padding="max_length", max_length=12, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        text = assets["text_encoder_2"](ids).last_hidden_state
    answer = transformer(
        hidden_states=FluxPipeline._pack_latents(noisy, *noisy.shape),
        timestep=times,
        guidance=torch.ones(2),
        pooled_projections=_clip(assets, captions).pooler_output,
        encoder_hidden_states=text,
        txt_ids=torch.zeros(12, 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32),
    ).sample
    return (answer - FluxPipeline._pack_latents(noise - clean, *clean.shape)).square().mean()


def _clip(assets, captions):
    tokens = assets["tokenizer"](captions, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        return assets["text_encoder"](tokens.input_ids)


REFERENCES = {"sd1": reference_sd1, "sdxl": reference_sdxl, "flux": reference_flux}


@pytest.mark.parametrize(
    "family", ["sd1", *(pytest.param(f, marks=pytest.mark.families) for f in ("sdxl", "flux"))]
)
def test_a_step_has_the_gradients_of_a_plain_loop(session_of, family):
    session = session_of(family, objective={"caption_dropout": 0})
    found = batch_loss(session, [0, 1])
    found.backward()
    ours = {name: each.grad.clone() for name, each in trained(session.module).items()}
    session.module.zero_grad()
    expected = REFERENCES[family](session)
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    largest = max(each.abs().max() for each in ours.values())
    for name, each in trained(session.module).items():
        scale = each.grad.abs().max().clamp(min=1e-4 * largest)
        assert (ours[name] - each.grad).abs().max() / scale <= 1e-5, name
