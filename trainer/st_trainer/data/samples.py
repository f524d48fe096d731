"""Samples of a run: what the datasets hold, in the form that the model wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_trainer.data.buckets import Size
from st_trainer.data.conditioning import read_conditioning
from st_trainer.data.facts import SampleFacts
from st_trainer.data.masks import read_mask
from st_trainer.data.medium import Medium, Shape, UnreadableSampleError
from st_trainer.errors import BadDataError


@dataclass(frozen=True)
class Sample:
    """One file and its caption."""

    name: str
    """Path below the folder of the dataset."""
    path: Path
    caption: str
    repeats: int
    shape: Shape
    """Of its values: its bucket."""
    facts: SampleFacts
    values: NDArray[Any] | None = None
    """As the medium reads it, when it is kept in memory."""
    mask: Path | None = None
    """Grey picture that says how much each place counts."""
    regularisation: bool = False
    conditioning: Path | None = None
    """Picture that a ControlNet reads."""


class Samples:
    """Everything usable in the datasets of a run, in an order that is always the same."""

    def __init__(self, samples: Sequence[Sample], medium: Medium, sha256: str) -> None:
        self._samples = samples
        self._medium = medium
        self.sha256 = sha256
        """Checksum over names, captions, content and facts: a resumed run must find the same."""

    def __len__(self) -> int:
        """Number of samples, each counted once."""
        return len(self._samples)

    @property
    def captions(self) -> list[str]:
        """The caption of each sample."""
        return [sample.caption for sample in self._samples]

    @property
    def repeats(self) -> list[int]:
        """How often each sample is seen in an epoch."""
        return [sample.repeats for sample in self._samples]

    @property
    def shapes(self) -> list[Shape]:
        """The bucket of each sample: its shape. Samples of one batch must share it."""
        return [sample.shape for sample in self._samples]

    def captions_at(self, indexes: Sequence[int]) -> list[str]:
        """Captions of the samples at ``indexes``."""
        return [self._samples[index].caption for index in indexes]

    def names(self, indexes: Sequence[int]) -> list[str]:
        """File names of the samples at ``indexes``."""
        return [self._samples[index].name for index in indexes]

    def values(self, indexes: Sequence[int]) -> Tensor:
        """Samples at ``indexes``, all of one bucket, ``(B, C, ...)``, -1 to 1."""
        stacked = np.stack([self._values(self._samples[index]) for index in indexes])
        tensor = torch.from_numpy(stacked)
        return tensor if tensor.is_floating_point() else tensor.float() / 127.5 - 1

    def facts(self, indexes: Sequence[int]) -> list[SampleFacts]:
        """How the values at ``indexes`` came out of their files."""
        return [self._samples[index].facts for index in indexes]

    def masks(self, indexes: Sequence[int]) -> Tensor:
        """Masks at ``indexes``, ``(B, 1, H, W)``, 0 to 1; 1 everywhere where there is none."""
        return torch.stack([read_mask(each.mask, self._area(each)) for each in self._at(indexes)])

    def conditioning(self, indexes: Sequence[int]) -> Tensor:
        """Conditioning pictures at ``indexes``, ``(B, 3, H, W)``, 0 to 1."""
        return torch.stack(
            [read_conditioning(each.conditioning, self._area(each)) for each in self._at(indexes)]
        )

    def regularised(self, indexes: Sequence[int]) -> list[bool]:
        """Which samples at ``indexes`` are of a dataset for prior regularisation."""
        return [self._samples[index].regularisation for index in indexes]

    def _at(self, indexes: Sequence[int]) -> list[Sample]:
        return [self._samples[index] for index in indexes]

    def _area(self, sample: Sample) -> Size:
        """Height and width of what lies beside ``sample``."""
        return self._medium.area(sample.shape)

    def _values(self, sample: Sample) -> NDArray[Any]:
        if sample.values is not None:
            return sample.values
        try:
            values = self._medium.read(sample.path).values
        except UnreadableSampleError as error:
            raise BadDataError(f"{sample.name} changed during the run: {error}") from None
        if values.shape != sample.shape:
            raise BadDataError(f"{sample.name} changed during the run: it has another aspect")
        return values
