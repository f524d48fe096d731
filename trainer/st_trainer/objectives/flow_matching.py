"""Flow matching with straight paths: from clean to noise, the model learns the velocity.

Lipman et al. 2023, "Flow Matching for Generative Modeling"; Liu et al. 2022, "Flow Straight and
Fast". Time runs as in Esser et al. 2024: 0 is the clean sample, 1 is noise.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from st_shared.spec.objective import ObjectiveSpec
from st_trainer.objectives.losses import over_samples
from st_trainer.objectives.objective import Objective
from st_trainer.objectives.timesteps import dynamic_shift, shifted

Path = Callable[[int, int], Tensor]
"""Times of a sampler, ``(steps + 1,)``, from 1 to 0, of ``steps`` and the number of tokens."""

_SMALLEST = 1e-6
"""Keeps ratios finite at the ends of the path."""


class FlowMatching(Objective):
    """Velocity ``noise - clean`` on the straight path."""

    usual_sampling = "logit_normal"

    def __init__(self, spec: ObjectiveSpec, path: Path | None = None) -> None:
        super().__init__(spec)
        self._path = path or even_path

    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Point of the path: ``x_t = (1 - t) x_0 + t noise``; Liu et al. 2022, equation 1."""
        return interpolate(clean, noise, times)

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Derivative of the path by time, the same everywhere on it: ``noise - x_0``."""
        del times
        return noise - clean

    def clean(self, predicted: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """``x_0 = x_t - t v``."""
        return noisy - over_samples(times, noisy) * predicted

    def ratio(self, times: Tensor) -> Tensor:
        """``t / (1 - t)``."""
        return times / (1 - times).clamp(min=_SMALLEST)

    def sharpness(self, times: Tensor) -> Tensor:
        """``1 / t²``, since ``x_0 = x_t - t v``."""
        return 1 / times.square().clamp(min=_SMALLEST**2)

    def path(self, steps: int, tokens: int) -> Tensor:
        """The path of the family's sampler."""
        return self._path(steps, tokens)

    def step(self, noisy: Tensor, predicted: Tensor, time: Tensor, following: Tensor) -> Tensor:
        """Euler's step along the velocity."""
        return noisy - (time - following) * predicted


def interpolate(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Point of the straight path: ``x_t = (1 - t) x_0 + t noise``."""
    t = over_samples(times, clean)
    return (1 - t) * clean + t * noise


def even_path(steps: int, tokens: int) -> Tensor:
    """Equal distances."""
    del tokens
    length = 1 / steps
    times = [*(1 - index * length for index in range(steps)), 0.0]
    return torch.tensor(times, dtype=torch.float64)


def shifted_path(config: Any) -> Path:
    """Equal distances, then the shift that the file of a scheduler of Diffusers asks for.

    For pipelines that give their scheduler the sigmas, as Flux does.
    """

    def path(steps: int, tokens: int) -> Tensor:
        if not config.get("use_dynamic_shifting"):
            return shifted(even_path(steps, tokens), config.get("shift", 1.0))
        return shifted(even_path(steps, tokens), _shift_of(config, tokens))

    return path


def scheduler_path(scheduler: Any) -> Path:
    """What a scheduler of Diffusers makes of a number of steps, for pipelines that ask no more."""
    config = scheduler.config

    def path(steps: int, tokens: int) -> Tensor:
        dynamic = config.get("use_dynamic_shifting")
        told = {"mu": math.log(_shift_of(config, tokens))} if dynamic else {}
        scheduler.set_timesteps(steps, **told)
        sigmas: Tensor = scheduler.sigmas
        return sigmas.double().cpu()

    return path


def _shift_of(config: Any, tokens: int) -> float:
    """The shift by the number of tokens that the file of a scheduler asks for."""
    between = config["base_image_seq_len"], config["max_image_seq_len"]
    return dynamic_shift(tokens, between, (config["base_shift"], config["max_shift"]))
