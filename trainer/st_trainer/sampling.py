"""Draws samples: the steps of the objective from noise to clean, with guidance."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from st_shared.spec.training import ValidationSpec
from st_trainer.data.conditioning import read_conditioning
from st_trainer.data.content import Content
from st_trainer.data.medium import Shape
from st_trainer.families.control import CONTROL
from st_trainer.families.family import Condition, Denoiser, Guide

_AT_ONCE = {"image": 64, "video": 1, "audio": 1}
"""Samples that pass through the model together."""


@torch.no_grad()
def draw(denoiser: Denoiser, captions: Sequence[str], settings: ValidationSpec) -> Tensor:
    """One sample a caption, ``(B, C, ...)``, on the CPU: bytes, or floats -1 to 1 of sounds.

    The noise of each sample depends on ``settings.seed`` and its place in ``captions`` alone.
    """
    noise = starting_noise(len(captions), denoiser.latent_shape, settings.seed)
    told, kind = pictures(settings, denoiser), denoiser.medium.kind
    samples = []
    for part in _parts(len(captions), _AT_ONCE[kind]):
        own = {name: tensor[part] for name, tensor in told.items()}
        latents = denoise(denoiser, list(captions[part]), noise[part], settings, own)
        samples.append(denoiser.samples(latents).cpu())
    drawn = torch.cat(samples)
    return drawn.float().clamp(-1, 1) if kind == "audio" else as_bytes(drawn)


def pictures(settings: ValidationSpec, denoiser: Denoiser) -> Condition:
    """What samples are drawn with beside their captions: conditioning pictures.

    Raises:
        BadDataError: one cannot be read.
    """
    if not settings.conditioning:
        return {}
    size = denoiser.sample_shape[-2], denoiser.sample_shape[-1]
    read = [read_conditioning(Content.of_file(Path(path)), size) for path in settings.conditioning]
    return {CONTROL: denoiser.control(torch.stack(read))}


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
    guide = denoiser.family.guide(denoiser.module, guidance)
    condition = _condition(denoiser, captions, guidance) | _to(told or {}, device)
    null = _to(denoiser.null(condition), device) if guide else {}
    tokens = denoiser.tokens(noise)
    path = objective.path(settings.sampler_steps, tokens)
    latents = objective.start(noise.to(device), tokens)
    for time, following in pairwise(path):
        times = time.to(device, _dtype_of_times(path)).expand(len(captions))
        answer = guided(denoiser, latents, times, (condition, null), guide)
        latents = objective.step(latents, answer, time, following)
    return latents


def guidance_of(denoiser: Denoiser, settings: ValidationSpec) -> float:
    """The guidance that is asked for, or what suits the family."""
    usual = denoiser.family.usual_guidance
    return usual if settings.guidance is None else settings.guidance


def as_bytes(values: Tensor) -> Tensor:
    """Values -1 to 1 as bytes 0 to 255; what lies outside is clipped."""
    return ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def guided(
    denoiser: Denoiser,
    latents: Tensor,
    times: Tensor,
    conditions: tuple[Condition, Condition],
    guide: Guide | None,
) -> Tensor:
    """Answer pushed away from the caption-less one, or the answer to the caption alone.

    ``conditions`` holds the captions and, where there is a ``guide``, the null captions.
    """
    condition, null = conditions
    if guide is None:
        return denoiser.predict(latents, times, condition)
    both = {name: torch.cat([condition[name], null[name]]) for name in condition}
    found = denoiser.predict(torch.cat([latents, latents]), times.repeat(2), both)
    with_caption, without = found.chunk(2)
    return guide(with_caption, without)


def _condition(denoiser: Denoiser, captions: Sequence[str], guidance: float) -> Condition:
    """The captions, and for a distilled model its guidance."""
    condition = _to(denoiser.encode(captions), denoiser.device)
    if denoiser.family.is_distilled:
        condition["guidance"] = torch.full_like(condition["guidance"], guidance)
    return condition


def _dtype_of_times(path: Tensor) -> torch.dtype:
    """Whole steps stay whole; the rest is as exact as the model."""
    return torch.float32 if path.is_floating_point() else path.dtype


def _to(condition: Condition, device: torch.device) -> Condition:
    return {name: tensor.to(device) for name, tensor in condition.items()}


def _parts(count: int, at_once: int) -> Iterator[slice]:
    for start in range(0, count, at_once):
        yield slice(start, start + at_once)
