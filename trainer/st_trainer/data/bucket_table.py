"""Which bucket each sample belongs to, over the shards of all datasets."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_trainer.data.medium import Shape
from st_trainer.data.shard import Shard

_SLICE = 65_536


@dataclass(frozen=True)
class BucketTable:
    """Two bytes a sample, and a line for each bucket."""

    numbers: NDArray[np.uint16]
    """The bucket of each sample."""
    shapes: list[Shape]
    """Of each bucket: the shape of its samples."""
    value_bytes: NDArray[np.int64]
    """Of each bucket: bytes of a decoded sample."""

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> Self:
        """That of the samples in ``shards``, each of which numbers its own buckets."""
        shards = list(shards)
        numbers = np.empty(sum(shard.summary.usable for shard in shards), np.uint16)
        known: dict[Shape, int] = {}
        sizes: list[int] = []
        start = 0
        for shard in shards:
            for shape, size in shard.summary.buckets:
                if known.setdefault(tuple(shape), len(known)) == len(sizes):
                    sizes.append(size)
            ours = [known[tuple(shape)] for shape, _ in shard.summary.buckets]
            end = start + shard.summary.usable
            numbers[start:end] = np.array(ours, np.uint16)[shard.buckets]
            start = end
        return cls(numbers, list(known), np.array(sizes, np.int64))

    def counts(self) -> dict[Shape, int]:
        """How many samples each bucket holds."""
        counts = np.bincount(self.numbers, minlength=len(self.shapes)).tolist()
        return dict(zip(self.shapes, counts, strict=True))

    def fitting(self, limit: int) -> int:
        """How many samples, from the first on, fit into ``limit`` bytes once decoded."""
        for start in range(0, len(self.numbers), _SLICE):
            until = self.value_bytes[self.numbers[start : start + _SLICE]].cumsum()
            if until[-1] > limit:
                return start + int(np.searchsorted(until, limit, side="right"))
            limit -= int(until[-1])
        return len(self.numbers)
