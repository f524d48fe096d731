"""Flow matching with straight paths: from an image to noise, the model learns the velocity.

Lipman et al. 2023, "Flow Matching for Generative Modeling"; Liu et al. 2022, "Flow Straight and
Fast". Time runs as in Esser et al. 2024: 0 is the clean image, 1 is noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from st_shared.spec.training import ObjectiveSpec

Predictor = Callable[[Tensor, Tensor], Tensor]
"""Takes noisy images ``(B, C, H, W)`` and times ``(B,)``, gives velocities ``(B, C, H, W)``."""


def sample_times(count: int, distribution: str, generator: torch.Generator | None = None) -> Tensor:
    """Times in (0, 1), ``(count,)``; logit-normal is Esser et al. 2024, equation 19, m=0, s=1."""
    if distribution == "uniform":
        return torch.rand(count, generator=generator)
    if distribution == "logit_normal":
        return torch.randn(count, generator=generator).sigmoid()
    raise ValueError(f"unknown distribution of times {distribution!r}")


def interpolate(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Point of the straight path: ``x_t = (1 - t) x_0 + t noise``."""
    t = times.view(-1, *[1] * (clean.dim() - 1))
    return (1 - t) * clean + t * noise


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Derivative of the path by time, the same everywhere on it: ``noise - x_0``."""
    return noise - clean


def flow_matching_loss(predict: Predictor, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Mean squared error between predicted and true velocity, a scalar in fp32."""
    predicted = predict(interpolate(clean, noise, times), times)
    return torch.nn.functional.mse_loss(predicted.float(), velocity(clean, noise).float())


def drop_captions(
    captions: list[str], objective: ObjectiveSpec, generator: torch.Generator
) -> list[str]:
    """``captions``, a random share of them emptied, for classifier-free guidance.

    Ho & Salimans 2022, algorithm 1.
    """
    kept = torch.rand(len(captions), generator=generator) >= objective.caption_dropout
    return [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
