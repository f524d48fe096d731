"""Noise of a training batch: standard normal, then what the specification does to it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from st_shared.spec.objective import NoiseSpec
from st_trainer.objectives.losses import over_samples


@dataclass(frozen=True)
class Noise:
    """Noise that makes the target, and noise that makes what the model sees."""

    target: Tensor
    seen: Tensor


def draw_noise(
    shape: torch.Size, spec: NoiseSpec, step: int, generator: torch.Generator | None
) -> Noise:
    """Noise of ``shape`` ``(B, C, ...)`` for training step ``step``, counted from 0."""
    noise = torch.randn(shape, generator=generator)
    if spec.offset:
        noise = noise + spec.offset * _offset(noise, spec.offset_probability, generator)
    strength = perturbation(spec, step)
    if not strength:
        return Noise(noise, noise)
    return Noise(noise, noise + strength * torch.randn(shape, generator=generator))


def perturbation(spec: NoiseSpec, step: int) -> float:
    """Spread of the noise that the input alone gets; Ning et al. 2023, algorithm 1."""
    if not spec.input_perturbation_steps:
        return spec.input_perturbation
    return spec.input_perturbation * max(0.0, 1 - step / spec.input_perturbation_steps)


def _offset(noise: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """One normal number a channel, in a share of the samples; the others get 0."""
    shape = (*noise.shape[:2], *[1] * (noise.dim() - 2))
    values = torch.randn(shape, generator=generator)
    chosen = torch.rand(len(noise), generator=generator) < probability
    return values * over_samples(chosen.float(), values)
