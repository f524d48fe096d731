"""Which bucket each sample belongs to, over the shards of all datasets."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_trainer.data.medium import Shape
from st_trainer.data.shard import Shard


@dataclass(frozen=True)
class BucketTable:
    """Two bytes a sample, and a line for each bucket."""

    numbers: NDArray[np.uint16]
    """The bucket of each sample."""
    shapes: list[Shape]
    """Of each bucket: the shape of its samples."""

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> Self:
        """That of the samples in ``shards``, each of which numbers its own buckets."""
        shards = list(shards)
        numbers = np.empty(sum(shard.summary.usable for shard in shards), np.uint16)
        known: dict[Shape, int] = {}
        start = 0
        for shard in shards:
            for shape, _ in shard.summary.buckets:
                known.setdefault(tuple(shape), len(known))
            ours = [known[tuple(shape)] for shape, _ in shard.summary.buckets]
            end = start + shard.summary.usable
            numbers[start:end] = np.array(ours, np.uint16)[shard.buckets]
            start = end
        return cls(numbers, list(known))

    def counts(self) -> dict[Shape, int]:
        """How many samples each bucket holds."""
        counts = np.bincount(self.numbers, minlength=len(self.shapes)).tolist()
        return dict(zip(self.shapes, counts, strict=True))
