"""Denoising diffusion in discrete steps: the model predicts the noise, or ``v``.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; ``v`` after Salimans & Ho 2022,
appendix D. Times are steps, 0 to T - 1.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from st_shared.spec.objective import ObjectiveSpec
from st_trainer.objectives.losses import over_samples
from st_trainer.objectives.objective import Objective


@dataclass(frozen=True)
class NoiseSchedule:
    """How much signal is left at each step, and which steps a sampler visits."""

    alphas_bar: Tensor
    """Share of the clean sample's variance at each step, ``(T,)``, falling."""
    prediction: str = "epsilon"
    spacing: str = "leading"
    """As a scheduler's file says; ``solver`` is the linspace of DPM-Solver, which ends before 0."""
    offset: int = 0

    @classmethod
    def of(cls, scheduler: Any) -> "NoiseSchedule":
        """That of a scheduler of diffusers."""
        config = scheduler.config
        return cls(
            scheduler.alphas_cumprod,
            "v" if config.get("prediction_type") == "v_prediction" else "epsilon",
            config.get("timestep_spacing", "leading"),
            config.get("steps_offset", 0),
        )

    def visited(self, steps: int) -> list[int]:
        """Steps of a sampler, falling; Lin et al. 2024, table 2, has the other spacings."""
        count = len(self.alphas_bar)
        if self.spacing == "trailing":
            return [round(count - index * count / steps) - 1 for index in range(steps)]
        if self.spacing == "solver":
            falling = torch.linspace(count - 1, 0, steps + 1, dtype=torch.float64)
            return falling[:-1].round().long().tolist()
        if self.spacing == "linspace":
            return torch.linspace(count - 1, 0, steps).round().long().tolist()
        stride = count // steps
        return [index * stride + self.offset for index in reversed(range(steps))]


class Ddpm(Objective):
    """Noise, or ``v``, of a variance-preserving path."""

    def __init__(self, spec: ObjectiveSpec, schedule: NoiseSchedule) -> None:
        super().__init__(spec)
        self.schedule = schedule
        self.predicts_v = (spec.prediction or schedule.prediction) == "v"

    def from_share(self, shares: Tensor) -> Tensor:
        """Steps, whole numbers."""
        count = len(self.schedule.alphas_bar)
        return (shares * count).long().clamp(0, count - 1)

    def share(self, times: Tensor) -> Tensor:
        """``t / T``."""
        return times / len(self.schedule.alphas_bar)

    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """``x_t = sqrt(a) x_0 + sqrt(1 - a) noise``; Ho et al. 2020, equation 4."""
        signal, spread = self._roots(times, clean)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The noise, or ``v = sqrt(a) noise - sqrt(1 - a) x_0``."""
        signal, spread = self._roots(times, clean)
        return signal * noise - spread * clean if self.predicts_v else noise

    def clean(self, predicted: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """``x_0`` from the noise, or ``sqrt(a) x_t - sqrt(1 - a) v``."""
        signal, spread = self._roots(times, noisy)
        if self.predicts_v:
            return signal * noisy - spread * predicted
        return (noisy - spread * predicted) / signal

    def ratio(self, times: Tensor) -> Tensor:
        """``sqrt((1 - a) / a)``."""
        kept = self._alphas(times)
        return ((1 - kept) / kept).sqrt()

    def sharpness(self, times: Tensor) -> Tensor:
        """``snr`` for the noise, ``snr + 1`` for ``v``."""
        snr = 1 / self.ratio(times).square()
        return snr + 1 if self.predicts_v else snr

    def path(self, steps: int, tokens: int) -> Tensor:
        """Steps as the scheduler spaces them, then -1, where nothing but signal is left."""
        del tokens
        return torch.tensor([*self.schedule.visited(steps), -1])

    def step(self, noisy: Tensor, predicted: Tensor, time: Tensor, following: Tensor) -> Tensor:
        """DDIM without noise, Song et al. 2021, equation 12 with sigma 0."""
        now, then = (each.reshape(1).to(noisy.device) for each in (time, following))
        clean = self.clean(predicted, noisy, now)
        signal, spread = self._roots(now, noisy)
        noise = signal * predicted + spread * noisy if self.predicts_v else predicted
        signal, spread = self._roots(then, noisy)
        return signal * clean + spread * noise

    def _alphas(self, times: Tensor) -> Tensor:
        found = self.schedule.alphas_bar.to(times.device)[times.clamp(min=0)]
        return torch.where(times < 0, torch.ones_like(found), found)

    def _roots(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        kept = over_samples(self._alphas(times), like)
        return kept.sqrt(), (1 - kept).sqrt()
