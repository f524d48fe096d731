"""Exponential moving average of the weights: smoother samples than the weights themselves."""

import copy

import torch
from torch import nn


class Ema:
    """An average of the weights of a module, in a module of its own.

    After ``n`` updates the old average keeps ``min(decay, (1 + n) / (10 + n))``, so that the
    random start is soon forgotten. Polyak & Juditsky 1992; Karras et al. 2024 for diffusion.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.module = copy.deepcopy(module).requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the present weights of ``module``."""
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        pairs = zip(self.module.parameters(), module.parameters(), strict=True)
        for average, weight in pairs:
            average.lerp_(weight, 1 - kept)
        for kept_buffer, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            kept_buffer.copy_(buffer)
        self.updates += 1
