"""Distances between prediction and target, element by element and as one number."""

import torch
from torch import Tensor
from torch.nn import functional

from st_shared.spec.objective import LossSpec


def over_samples(values: Tensor, like: Tensor) -> Tensor:
    """``values`` ``(B,)`` with further dimensions of 1, so that they spread over ``like``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def distance(predicted: Tensor, target: Tensor, name: str, huber_c: Tensor | None = None) -> Tensor:
    """Elementwise loss of the shape of ``target``; ``huber_c`` ``(B,)`` is for huber, smooth_l1.

    Pseudo-Huber after Charbonnier et al. 1997: ``2c(sqrt(d² + c²) - c)``.
    """
    if name == "l2" or huber_c is None:
        return functional.mse_loss(predicted, target, reduction="none")
    c = over_samples(huber_c, target)
    root = 2 * (((predicted - target).square() + c.square()).sqrt() - c)
    return c * root if name == "huber" else root


def huber_width(spec: LossSpec, shares: Tensor, ratios: Tensor) -> Tensor:
    """The width ``c`` of each sample, ``(B,)``.

    ``shares`` are times as shares of the path to noise, 0 to 1; ``ratios`` are noise over signal.
    """
    c = spec.huber_c
    if spec.huber_schedule == "exponential":
        return torch.tensor(c, device=shares.device) ** shares
    if spec.huber_schedule == "snr":
        return (1 - c) / (1 + ratios).square() + c
    return torch.full_like(shares, c)


def min_snr(ratios: Tensor, gamma: float, *, soft: bool) -> Tensor:
    """Weights ``(B,)`` of the squared error of the clean sample; ``ratios``: noise over signal.

    Hang et al. 2023, equation 8: ``min(snr, gamma)``; soft, Crowson et al. 2024:
    ``snr * gamma / (snr + gamma)``, written so that no noise at all stays finite.
    """
    inverse = ratios.square()
    if soft:
        return 1 / (inverse + 1 / gamma)
    return 1 / inverse.clamp(min=1 / gamma)
