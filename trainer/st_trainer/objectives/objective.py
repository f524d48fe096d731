"""What every objective answers: how times, noisy samples, targets and sampler steps are made.

Shapes: samples are ``(B, C, ...)`` with any number of further dimensions (images 4-D, video 5-D,
audio 3-D), times ``(B,)``. Each objective has times of its own kind; only it and the family,
which hands them to the model, know what they mean.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from st_shared.spec.objective import ObjectiveSpec
from st_trainer.objectives.losses import distance, huber_width, min_snr, over_samples
from st_trainer.objectives.timesteps import draw_times, dynamic_shift


class Objective(ABC):
    """One way to make a training target, and the sampler that goes with it."""

    usual_sampling: ClassVar[str] = "uniform"
    """Distribution of times where the specification names none."""

    def __init__(self, spec: ObjectiveSpec) -> None:
        self.spec = spec

    def draw(self, count: int, tokens: int, generator: torch.Generator | None = None) -> Tensor:
        """Training times ``(count,)`` for latents of ``tokens`` tokens."""
        timesteps = self.spec.timesteps
        shift = dynamic_shift(tokens) if timesteps.shift == "dynamic" else float(timesteps.shift)
        name = self.spec.timestep_sampling or self.usual_sampling
        return self.from_share(draw_times(count, name, timesteps, generator, shift))

    def from_share(self, shares: Tensor) -> Tensor:
        """Times at shares of the path to noise, each 0 (clean) to 1 (noise)."""
        return shares

    def share(self, times: Tensor) -> Tensor:
        """The inverse of ``from_share``, as float."""
        return times

    @abstractmethod
    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the model sees."""

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the model should answer."""

    @abstractmethod
    def clean(self, predicted: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The clean sample that follows from an answer."""

    @abstractmethod
    def ratio(self, times: Tensor) -> Tensor:
        """Noise over signal, ``(B,)``: the root of ``1 / snr``."""

    @abstractmethod
    def sharpness(self, times: Tensor) -> Tensor:
        """Squared error of the answer over squared error of the clean sample, ``(B,)``."""

    @abstractmethod
    def path(self, steps: int, tokens: int) -> Tensor:
        """Times of a sampler, ``(steps + 1,)``, from noise to clean."""

    @abstractmethod
    def step(self, noisy: Tensor, predicted: Tensor, time: Tensor, following: Tensor) -> Tensor:
        """One step of a deterministic sampler from ``time`` to ``following``, both scalars."""

    def start(self, noise: Tensor, tokens: int) -> Tensor:
        """Where a sampler begins, made from standard normal ``noise``."""
        del tokens
        return noise

    def scaled(self, noisy: Tensor, times: Tensor) -> Tensor:
        """``noisy`` as the network wants it; only EDM scales."""
        del times
        return noisy

    def weight(self, times: Tensor) -> Tensor | None:
        """Weights ``(B,)`` of the samples; None where each counts alike."""
        loss = self.spec.loss
        if loss.snr_gamma is None:
            return None
        found = min_snr(self.ratio(times), loss.snr_gamma, soft=loss.soft_min_snr)
        return found / self.sharpness(times)

    def loss(
        self, predicted: Tensor, target: Tensor, times: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """The mean loss, a scalar in fp32.

        ``weights`` broadcasts to ``target``, or has the shape ``(B,)``; it is multiplied with
        those of ``weight``.
        """
        predicted, target, spec = predicted.float(), target.float(), self.spec.loss
        own = self.weight(times)
        if spec.name == "l2" and own is None and weights is None:
            return functional.mse_loss(predicted, target)
        width = None
        if spec.name != "l2":
            width = huber_width(spec, self.share(times), self.ratio(times))
        errors = distance(predicted, target, spec.name, width)
        for each in (own, weights):
            if each is not None:
                errors = errors * (over_samples(each, target) if each.dim() == 1 else each)
        return errors.mean()
