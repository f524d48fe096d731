"""Exponential moving average of what is trained: smoother samples than the weights themselves."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from st_shared.spec.optimizer import EmaSpec
from st_trainer.adapters.adapter import copy_into
from st_trainer.techniques.technique import Technique, TechniqueState

if TYPE_CHECKING:
    from st_trainer.session import Session


class Ema(Technique):
    """An average of the trained parameters, beside them.

    Polyak & Juditsky 1992; Karras et al. 2024 for diffusion.
    """

    name = "ema"
    keeps_parts = True

    def __init__(self, spec: EmaSpec) -> None:
        self.spec = spec
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        """The averages, by the name of the parameter; where weights are spread, of the part that
        lies here."""

    def begin(self, session: "Session") -> None:
        """Start from the weights as they are."""
        self.start(session.strategy.parts())

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Start from ``weights``."""
        self.average = {
            name: each.detach().to(self._device(each), copy=True) for name, each in weights.items()
        }

    def stepped(self, session: "Session") -> None:
        """Every ``spec.every`` steps, move the average."""
        if (session.step + 1) % self.spec.every == 0:
            self.update(session.strategy.parts())

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move the average towards the present ``weights``."""
        kept = kept_share(self.spec, self.updates)
        averages = list(self.average.values())
        present = [
            each.detach().to(ours.device)
            for each, ours in zip(weights.values(), averages, strict=True)
        ]
        torch._foreach_lerp_(averages, present, 1 - kept)
        self.updates += 1

    @contextmanager
    def evaluating(self, session: "Session") -> Iterator[None]:
        """The average stands in for the weights."""
        with session.strategy.showing(self.average):
            yield

    def state(self) -> TechniqueState:
        """The averages, and how often they were moved."""
        return TechniqueState(self.average, {"updates": self.updates})

    def restore(self, state: TechniqueState) -> None:
        """Take the averages of a checkpoint."""
        copy_into(self.average, state.tensors)
        self.updates = int(state.numbers["updates"])

    def _device(self, like: Tensor) -> torch.device:
        return torch.device("cpu") if self.spec.device == "cpu" else like.device


def kept_share(spec: EmaSpec, updates: int) -> float:
    """How much of the old average stays, so that the random start is soon forgotten."""
    match spec.ramp:
        case "early":
            return min(spec.decay, (1 + updates) / (10 + updates))
        case "power":
            return min(spec.decay, 1 - math.pow(1 + updates / spec.ramp_steps, -spec.ramp_power))
        case "none":
            return spec.decay
