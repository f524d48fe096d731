"""Gradients of one training step against a plain loop on Diffusers' own modules."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import (
    AceStepPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
)
from fixtures.media import BEFORE, CAPTIONS, dataset_of, write_samples
from fixtures.tiny import FAST, TINY
from PIL import Image

from st_shared.spec import FAMILIES as CATALOGUE
from st_shared.spec import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.data.reading import read_datasets
from st_trainer.loop import batch_loss
from st_trainer.session import Session
from st_trainer.weights import open_denoiser


@pytest.fixture
def session_of(base_folder, tmp_path):
    def make(family, **changes):
        document = {
            "model": {
                "family": family,
                "base": str(base_folder(family)),
                "config": TINY[family].config,
            },
            "datasets": [dataset_of(family, tmp_path)],
            "adapter": {"kind": "full"},
            "ema": {"enabled": False},
        }
        spec = TrainingSpec.model_validate(document | changes)
        denoiser = open_denoiser(spec, list)
        write_samples(tmp_path, denoiser.medium, denoiser.sample_shape, count=2)
        if CATALOGUE[family].edits:  # the two are one batch: their references have one aspect
            shutil.copy(tmp_path / f"1{BEFORE}", tmp_path / f"0{BEFORE}")
        samples = read_datasets(spec.datasets, [tmp_path], denoiser.medium).samples
        return Session(spec, samples, denoiser)

    return make


def drawn(session, count=2):
    """The random numbers of a step, in the order in which a step draws them."""
    generator = torch.Generator().manual_seed(session.spec.seed)
    vae = session.denoiser.assets["vae"]
    clean = encoded(vae, session.samples.values([0, 1]), generator)
    shift, scale = vae.config.shift_factor or 0, vae.config.scaling_factor
    return (clean - shift) * scale, torch.randn(clean.shape, generator=generator), generator


def encoded(vae, samples, generator):
    """Draws of the latents of samples, each encoded alone as the trainer does: sums of a batch are
    taken in another order."""
    with torch.no_grad():
        found = [vae.encode(sample[None]).latent_dist for sample in samples]
    mean, std = (torch.cat([getattr(each, name) for each in found]) for name in ("mean", "std"))
    return mean + std * torch.randn(mean.shape, generator=generator)


def even(generator):
    """Two numbers between 0 and 1, from which times follow by the quantiles of their density."""
    return torch.rand(2, generator=generator, dtype=torch.float64)


def reference_sd1(session):
    unet, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    times = (even(generator) * 1000).long()
    text = _clip(assets, list(CAPTIONS)).last_hidden_state
    answer = unet(scheduler.add_noise(clean, noise, times), times, text).sample
    return (answer - noise).square().mean()


def reference_sdxl(session):
    unet, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    times = (even(generator) * 1000).long()
    ids = assets["tokenizer"](
        list(CAPTIONS), padding="max_length", max_length=77, return_tensors="pt"
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
            "time_ids": torch.tensor([[16, 16, 0, 0, 16, 16]] * 2),
        },
    ).sample
    return (answer - noise).square().mean()


def reference_flux(session, before=None):
    """``before``: latents of references."""
    transformer, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    times = torch.special.ndtri(even(generator)).sigmoid().float()
    noisy = (1 - times.view(-1, 1, 1, 1)) * clean + times.view(-1, 1, 1, 1) * noise
    captions = list(CAPTIONS)
    ids = assets["tokenizer_2"](
        captions, padding="max_length", max_length=12, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        text = assets["text_encoder_2"](ids).last_hidden_state
    tokens = FluxPipeline._pack_latents(noisy, *noisy.shape)
    ids = FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32)
    count = tokens.shape[1]
    if before is not None:
        height, width = before.shape[2] // 2, before.shape[3] // 2
        more = FluxPipeline._prepare_latent_image_ids(2, height, width, "cpu", torch.float32)
        more[..., 0] = 1
        tokens = torch.cat([tokens, FluxPipeline._pack_latents(before, *before.shape)], dim=1)
        ids = torch.cat([ids, more])
    answer = transformer(
        hidden_states=tokens,
        timestep=times,
        guidance=torch.ones(2),
        pooled_projections=_clip(assets, captions).pooler_output,
        encoder_hidden_states=text,
        txt_ids=torch.zeros(12, 3),
        img_ids=ids,
    ).sample[:, :count]
    return (answer - FluxPipeline._pack_latents(noise - clean, *clean.shape)).square().mean()


def reference_kontext(session):
    vae = session.denoiser.assets["vae"]
    folder = Path(session.spec.datasets[0].path)
    grey = [Image.open(folder / f"{index}{BEFORE}").convert("L") for index in range(2)]
    bytes_ = [list(each.crop((0, 8, 32, 56)).tobytes()) for each in grey]
    pixels = torch.tensor(bytes_).view(2, 1, 48, 32).expand(-1, 3, -1, -1) / 127.5 - 1
    with torch.no_grad():
        mode = vae.encode(pixels).latent_dist.mode()
    before = (mode - vae.config.shift_factor) * vae.config.scaling_factor
    return reference_flux(session, before)


def reference_pixart(session):
    transformer, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    scheduler = DDPMScheduler(beta_start=0.0001, beta_end=0.02)
    times = (even(generator) * 1000).long()
    tokens = assets["tokenizer"](
        list(CAPTIONS), padding="max_length", max_length=12, return_tensors="pt"
    )
    with torch.no_grad():
        text = assets["text_encoder"](**tokens).last_hidden_state
    answer = transformer(
        scheduler.add_noise(clean, noise, times),
        encoder_hidden_states=text,
        encoder_attention_mask=tokens.attention_mask,
        timestep=times,
        added_cond_kwargs={},
    ).sample
    return (answer.chunk(2, dim=1)[0] - noise).square().mean()


def reference_sd3(session):
    transformer, assets = session.module, session.denoiser.assets
    clean, noise, generator = drawn(session)
    times = torch.special.ndtri(even(generator)).sigmoid().float()
    noisy = (1 - times.view(-1, 1, 1, 1)) * clean + times.view(-1, 1, 1, 1) * noise
    parts = {name: each for name, each in assets.items() if name != "scheduler"}
    pipeline = StableDiffusion3Pipeline(transformer, assets["scheduler"], **parts)
    with torch.no_grad():
        text, _, pooled, _ = pipeline.encode_prompt(
            list(CAPTIONS), None, None, do_classifier_free_guidance=False, max_sequence_length=12
        )
    answer = transformer(noisy, text, pooled, times * 1000).sample
    return (answer - (noise - clean)).square().mean()


def reference_wan(session):
    transformer, assets = session.module, session.denoiser.assets
    config = assets["vae"].config
    mean, std = (
        torch.tensor(each).view(1, -1, 1, 1, 1)
        for each in (config.latents_mean, config.latents_std)
    )
    generator = torch.Generator().manual_seed(session.spec.seed)
    with torch.no_grad():
        latents = encoded(assets["vae"], session.samples.values([0, 1]), generator)
        clean = (latents - mean) / std
        tokens = assets["tokenizer"](
            list(CAPTIONS),
            padding="max_length",
            max_length=12,
            truncation=True,
            return_tensors="pt",
        )
        text = assets["text_encoder"](**tokens).last_hidden_state * tokens.attention_mask[..., None]
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.special.ndtri(even(generator)).sigmoid().float()
    t = times.view(-1, 1, 1, 1, 1)
    answer = transformer((1 - t) * clean + t * noise, times * 1000, text).sample
    return (answer - (noise - clean)).square().mean()


def reference_wan_i2v(session):
    """Channels and image as ``WanImageToVideoPipeline`` makes them of the first frames as files."""
    from diffusers import WanImageToVideoPipeline

    denoiser = session.denoiser
    pipeline = WanImageToVideoPipeline(**denoiser.assets, transformer=session.module)
    videos = session.samples.values([0, 1])
    frames = ((videos[:, :, 0] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    images = [Image.fromarray(each) for each in frames]
    generator = torch.Generator().manual_seed(session.spec.seed)
    with torch.no_grad():
        latents = encoded(pipeline.vae, videos, generator)
        config = pipeline.vae.config
        shift, scale = (
            torch.tensor(each).view(1, -1, 1, 1, 1)
            for each in (config.latents_mean, config.latents_std)
        )
        clean = (latents - shift) * (1 / scale)
        texts = [TINY["wan_i2v"].conditions(pipeline, [each])["text"] for each in CAPTIONS]
        known = []
        for image in images:
            seen = pipeline.video_processor.preprocess(image, height=16, width=32)
            _, condition = pipeline.prepare_latents(
                seen, 1, 4, 16, 32, 5, torch.float32, "cpu", latents=torch.zeros(1)
            )
            known.append(condition)
        embedded = torch.cat([pipeline.encode_image(image) for image in images])
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.special.ndtri(even(generator)).sigmoid().float()
    t = times.view(-1, 1, 1, 1, 1)
    seen = torch.cat([(1 - t) * clean + t * noise, torch.cat(known)], dim=1)
    text = torch.nn.functional.pad(torch.cat(texts), (0, 0, 0, 512 - 40))
    answer = session.module(seen, times * 1000, text, embedded).sample
    return (answer - (noise - clean)).square().mean()


def reference_ace_step(session):
    assets, transformer = session.denoiser.assets, session.module
    parts = {key: each for key, each in assets.items() if key != "scheduler"}
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0)
    pipeline = AceStepPipeline(**parts, transformer=transformer, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    condition = TINY["ace_step"].conditions(pipeline, list(CAPTIONS))
    generator = torch.Generator().manual_seed(session.spec.seed)
    samples = session.samples.values([0, 1])
    clean = encoded(assets["vae"], samples, generator).transpose(1, 2)
    noise = torch.randn(2, *clean.shape[:0:-1], generator=generator).transpose(1, 2)
    times = torch.special.ndtri(even(generator)).sigmoid().float()
    t = times.view(-1, 1, 1)
    answer = transformer(
        (1 - t) * clean + t * noise, times, times, condition["text"], condition["context"]
    ).sample
    return (answer - (noise - clean)).square().mean()


def _clip(assets, captions):
    tokens = assets["tokenizer"](captions, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        return assets["text_encoder"](tokens.input_ids)


REFERENCES = {
    "ace_step": reference_ace_step,
    "flux": reference_flux,
    "kontext": reference_kontext,
    "pixart": reference_pixart,
    "sd1": reference_sd1,
    "sd3": reference_sd3,
    "sdxl": reference_sdxl,
    "wan": reference_wan,
    "wan_i2v": reference_wan_i2v,
}


@pytest.mark.parametrize(
    "family",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.families) for name in TINY],
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
