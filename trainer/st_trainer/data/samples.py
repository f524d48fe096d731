"""Samples of a run: what the datasets hold, in the form that the model wants."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.bucket_table import BucketTable
from st_trainer.data.buckets import Size
from st_trainer.data.conditioning import read_conditioning
from st_trainer.data.facts import SampleFacts
from st_trainer.data.folder_source import FolderSource
from st_trainer.data.index import Index
from st_trainer.data.masks import read_mask
from st_trainer.data.medium import Medium, Shape, UnreadableSampleError
from st_trainer.data.shard import Shard
from st_trainer.errors import BadDataError

KEPT_BYTES = 1 << 30
"""Decoded samples are kept in memory up to this many bytes; beyond it they are read again."""


@dataclass(frozen=True)
class Part:
    """The samples of one dataset."""

    dataset: DatasetSpec
    source: FolderSource
    index: Index


@dataclass(frozen=True)
class _Place:
    """Where one sample is found."""

    part: Part
    shard: Shard
    row: int

    @property
    def name(self) -> str:
        """Path below the folder of the dataset."""
        return self.shard.name(self.row)


class Samples:
    """Everything usable in the datasets of a run, in an order that is always the same.

    In memory are two numbers a sample, its bucket and how often it repeats; the rest is mapped.
    """

    def __init__(
        self, parts: Sequence[Part], medium: Medium, sha256: str, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(len(part.index) for part in parts)]
        self._medium = medium
        self.sha256 = sha256
        """Checksum over names, captions, content and facts: a resumed run must find the same."""
        self._table = BucketTable.of(shard for part in parts for shard in part.index.shards)
        self._kept: dict[int, NDArray[Any]] = {}
        self._kept_until = self._table.fitting(kept_bytes)

    def __len__(self) -> int:
        """Number of samples, each counted once."""
        return self._starts[-1]

    @property
    def captions(self) -> Iterator[str]:
        """The caption of each sample."""
        for part in self._parts:
            yield from part.index.captions()

    @property
    def repeats(self) -> NDArray[np.uint16]:
        """How often each sample is seen in an epoch."""
        each = [part.dataset.repeats for part in self._parts]
        return np.repeat(np.array(each, np.uint16), np.diff(self._starts))

    @property
    def buckets(self) -> NDArray[np.uint16]:
        """The bucket of each sample, a number from 0. Samples of one batch must share it."""
        return self._table.numbers

    @property
    def bucket_counts(self) -> Counter[Shape]:
        """How many samples each bucket holds, by the shape of its samples."""
        return Counter(self._table.counts())

    def captions_at(self, indexes: Sequence[int]) -> list[str]:
        """Captions of the samples at ``indexes``."""
        return [each.shard.caption(each.row) for each in self._at(indexes)]

    def names(self, indexes: Sequence[int]) -> list[str]:
        """File names of the samples at ``indexes``."""
        return [each.name for each in self._at(indexes)]

    def shapes(self, indexes: Sequence[int]) -> list[Shape]:
        """Shapes of the values at ``indexes``."""
        return [self._table.shapes[self.buckets[index]] for index in indexes]

    def values(self, indexes: Sequence[int]) -> Tensor:
        """Samples at ``indexes``, all of one bucket, ``(B, C, ...)``, -1 to 1."""
        tensor = torch.from_numpy(np.stack([self._values(index) for index in indexes]))
        return tensor if tensor.is_floating_point() else tensor.float() / 127.5 - 1

    def facts(self, indexes: Sequence[int]) -> list[SampleFacts]:
        """How the values at ``indexes`` came out of their files."""
        return [each.shard.facts(each.row) for each in self._at(indexes)]

    def masks(self, indexes: Sequence[int]) -> Tensor:
        """Masks at ``indexes``, ``(B, 1, H, W)``, 0 to 1; 1 everywhere where there is none."""
        paths = (each.part.source.mask(each.name) for each in self._at(indexes))
        return torch.stack(list(map(read_mask, paths, self._areas(indexes))))

    def conditioning(self, indexes: Sequence[int]) -> Tensor:
        """Conditioning pictures at ``indexes``, ``(B, 3, H, W)``, 0 to 1."""
        paths = (each.part.source.conditioning(each.name) for each in self._at(indexes))
        return torch.stack(list(map(read_conditioning, paths, self._areas(indexes))))

    def regularised(self, indexes: Sequence[int]) -> list[bool]:
        """Which samples at ``indexes`` are of a dataset for prior regularisation."""
        return [each.part.dataset.regularisation for each in self._at(indexes)]

    def _at(self, indexes: Sequence[int]) -> list[_Place]:
        return [self._place(index) for index in indexes]

    def _place(self, index: int) -> _Place:
        number = bisect_right(self._starts, index) - 1
        part = self._parts[number]
        return _Place(part, *part.index.at(index - self._starts[number]))

    def _areas(self, indexes: Sequence[int]) -> Iterator[Size]:
        """Height and width of what lies beside the samples."""
        return map(self._medium.area, self.shapes(indexes))

    def _values(self, index: int) -> NDArray[Any]:
        if index in self._kept:
            return self._kept[index]
        place = self._place(index)
        path: Path = place.part.source.folder / place.name
        try:
            values = self._medium.read(path).values
        except UnreadableSampleError as error:
            raise BadDataError(f"{place.name} changed during the run: {error}") from None
        if [values.shape] != self.shapes([index]):
            raise BadDataError(f"{place.name} changed during the run: it has another aspect")
        if index < self._kept_until:
            self._kept[index] = values
        return values
