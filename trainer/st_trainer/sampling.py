"""Draws images: Euler steps along the velocity from noise to image, with guidance."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from st_shared.spec.training import ValidationSpec
from st_trainer.families.family import Condition, Denoiser

_AT_ONCE = 64
"""Images that pass through the model together."""


def draw(denoiser: Denoiser, captions: Sequence[str], settings: ValidationSpec) -> Tensor:
    """One image a caption, ``(B, C, H, W)`` bytes, on the CPU.

    The noise of each image depends on ``settings.seed`` and its place in ``captions`` alone.
    """
    noise = starting_noise(len(captions), denoiser.sample_shape, settings.seed)
    images = [
        denoise(denoiser, list(captions[part]), noise[part], settings)
        for part in _parts(len(captions))
    ]
    return as_bytes(torch.cat(images))


def starting_noise(count: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Standard normal noise ``(count, C, H, W)``; a larger count begins with the same images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])


@torch.no_grad()
def denoise(
    denoiser: Denoiser, captions: Sequence[str], noise: Tensor, settings: ValidationSpec
) -> Tensor:
    """Images ``(B, C, H, W)``, about -1 to 1, reached from ``noise`` at time 1 in equal steps."""
    device = next(denoiser.module.parameters()).device
    condition = _to(denoiser.encode(captions), device)
    null = _to(denoiser.encode([""] * len(captions)), device)
    images, step = noise.to(device), 1 / settings.sampler_steps
    for index in range(settings.sampler_steps):
        times = torch.full((len(captions),), 1 - index * step, device=device)
        velocity = guided(denoiser, images, times, (condition, null), settings.guidance)
        images = images - step * velocity
    return images.cpu()


def as_bytes(images: Tensor) -> Tensor:
    """Values -1 to 1 as bytes 0 to 255; what lies outside is clipped."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def guided(
    denoiser: Denoiser,
    images: Tensor,
    times: Tensor,
    conditions: tuple[Condition, Condition],
    guidance: float,
) -> Tensor:
    """Velocity pushed away from the caption-less one; Ho & Salimans 2022, equation 6.

    ``conditions`` holds the captions and the null captions.
    """
    condition, null = conditions
    if guidance == 1:
        return denoiser.predict(images, times, condition)
    both = {name: torch.cat([condition[name], null[name]]) for name in condition}
    found = denoiser.predict(images.repeat(2, 1, 1, 1), times.repeat(2), both)
    with_caption, without = found.chunk(2)
    return without + guidance * (with_caption - without)


def _to(condition: Condition, device: torch.device) -> Condition:
    return {name: tensor.to(device) for name, tensor in condition.items()}


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)
