"""Draws samples: the steps of the objective from noise to clean, with guidance."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from st_shared.spec.training import ValidationSpec
from st_trainer.data.conditioning import read_conditioning
from st_trainer.families.family import Condition, Denoiser, Shape
from st_trainer.families.unet import CONTROL

_AT_ONCE = 64
"""Images that pass through the model together."""


@torch.no_grad()
def draw(denoiser: Denoiser, captions: Sequence[str], settings: ValidationSpec) -> Tensor:
    """One image a caption, ``(B, C, H, W)`` bytes, on the CPU.

    The noise of each image depends on ``settings.seed`` and its place in ``captions`` alone.
    """
    noise = starting_noise(len(captions), denoiser.latent_shape, settings.seed)
    told = pictures(settings, denoiser.sample_shape)
    images = []
    for part in _parts(len(captions)):
        own = {name: tensor[part] for name, tensor in told.items()}
        latents = denoise(denoiser, list(captions[part]), noise[part], settings, own)
        images.append(denoiser.samples(latents).cpu())
    return as_bytes(torch.cat(images))


def pictures(settings: ValidationSpec, shape: Shape) -> Condition:
    """What samples of ``shape`` are drawn with beside their captions: conditioning pictures.

    Raises:
        BadDataError: one cannot be read.
    """
    if not settings.conditioning:
        return {}
    read = [read_conditioning(Path(path), shape[-1]) for path in settings.conditioning]
    return {CONTROL: torch.stack(read)}


def starting_noise(count: int, shape: Shape, seed: int) -> Tensor:
    """Standard normal noise ``(count, C, ...)``; a larger count begins with the same samples."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    captions: Sequence[str],
    noise: Tensor,
    settings: ValidationSpec,
    told: Condition | None = None,
) -> Tensor:
    """Latents ``(B, C, ...)`` reached from standard normal ``noise`` along the sampler's path.

    ``told`` is what the model is told beside the captions, with guidance and without.
    """
    objective, device = denoiser.objective, denoiser.device
    guidance = guidance_of(denoiser, settings)
    conditions = _conditions(denoiser, captions, guidance, told or {})
    path = objective.path(settings.sampler_steps, denoiser.tokens)
    latents = objective.start(noise.to(device), denoiser.tokens)
    for time, following in pairwise(path):
        times = time.to(device, _dtype_of_times(path)).expand(len(captions))
        answer = guided(denoiser, latents, times, conditions, guidance)
        latents = objective.step(latents, answer, time, following)
    return latents


def guidance_of(denoiser: Denoiser, settings: ValidationSpec) -> float:
    """The guidance that is asked for, or what suits the family."""
    usual = denoiser.family.usual_guidance
    return usual if settings.guidance is None else settings.guidance


def as_bytes(images: Tensor) -> Tensor:
    """Values -1 to 1 as bytes 0 to 255; what lies outside is clipped."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def guided(
    denoiser: Denoiser,
    latents: Tensor,
    times: Tensor,
    conditions: tuple[Condition, Condition],
    guidance: float,
) -> Tensor:
    """Answer pushed away from the caption-less one; Ho & Salimans 2022, equation 6.

    ``conditions`` holds the captions and the null captions. A distilled model is told its
    guidance, and answers once.
    """
    condition, null = conditions
    if guidance == 1 or denoiser.family.is_distilled:
        return denoiser.predict(latents, times, condition)
    both = {name: torch.cat([condition[name], null[name]]) for name in condition}
    found = denoiser.predict(torch.cat([latents, latents]), times.repeat(2), both)
    with_caption, without = found.chunk(2)
    return without + guidance * (with_caption - without)


def _conditions(
    denoiser: Denoiser, captions: Sequence[str], guidance: float, told: Condition
) -> tuple[Condition, Condition]:
    condition = _to(denoiser.encode(captions) | told, denoiser.device)
    if denoiser.family.is_distilled:
        guided_by = torch.full_like(condition["guidance"], guidance)
        return condition | {"guidance": guided_by}, {}
    null = {} if guidance == 1 else denoiser.encode([""] * len(captions)) | told
    return condition, _to(null, denoiser.device)


def _dtype_of_times(path: Tensor) -> torch.dtype:
    """Whole steps stay whole; the rest is as exact as the model."""
    return torch.float32 if path.is_floating_point() else path.dtype


def _to(condition: Condition, device: torch.device) -> Condition:
    return {name: tensor.to(device) for name, tensor in condition.items()}


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)
