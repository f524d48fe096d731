"""What the trainer asks of a model family."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from st_shared.spec.section import Section

ConfigT = TypeVar("ConfigT", bound=Section)

Assets = dict[str, Any]
"""What a model carries beside its weights, such as its vocabulary; JSON can hold it."""

Condition = dict[str, Tensor]
"""Encoded captions: named tensors whose first dimension counts samples."""


class FamilyCode(ABC, Generic[ConfigT]):
    """The code of one family; ``st_shared.spec.families`` holds what is known without it."""

    name: str

    @abstractmethod
    def assets(self, config: ConfigT, captions: Sequence[str]) -> Assets:
        """What a new model needs to know of the training captions."""

    @abstractmethod
    def build(self, config: ConfigT, assets: Assets) -> nn.Module:
        """A new model with random weights, drawn from torch's global generator."""

    @abstractmethod
    def sample_shape(self, config: ConfigT) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of one sample, values -1 to 1."""

    @abstractmethod
    def encode(self, config: ConfigT, assets: Assets, captions: Sequence[str]) -> Condition:
        """Captions as tensors on the CPU; the empty text is the null caption of guidance."""

    @abstractmethod
    def unknown_words(self, assets: Assets, caption: str) -> list[str]:
        """Words of ``caption`` that the model has never seen."""

    @abstractmethod
    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """Velocity ``noise - clean`` at ``noisy`` ``(B, C, H, W)`` and ``times`` ``(B,)``."""


@dataclass(frozen=True)
class Denoiser:
    """A model that can be trained and sampled: family, options, assets and weights."""

    family: FamilyCode[Any]
    config: Section
    assets: Assets
    module: nn.Module

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Shape ``(C, H, W)`` of one sample."""
        return self.family.sample_shape(self.config)

    def encode(self, captions: Sequence[str]) -> Condition:
        """Captions as tensors on the CPU."""
        return self.family.encode(self.config, self.assets, captions)

    def predict(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """Velocity ``noise - clean``, of the shape of ``noisy``."""
        return self.family.predict(self.module, noisy, times, condition)

    def unknown_words(self, caption: str) -> list[str]:
        """Words of ``caption`` that the model has never seen."""
        return self.family.unknown_words(self.assets, caption)

    def with_module(self, module: nn.Module) -> "Denoiser":
        """The same model with other weights, such as their average."""
        return replace(self, module=module)
