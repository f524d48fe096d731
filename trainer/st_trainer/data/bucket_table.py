"""Which bucket each sample belongs to, over the shards of all datasets."""

from collections import Counter
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
    def of(cls, shards: Iterable[Shard], groups: Iterable[int] | None = None) -> Self:
        """That of the samples in ``shards``, each of which numbers its own buckets.

        Shards of different ``groups`` share none.
        """
        shards = list(shards)
        numbered = list(zip(shards, groups or [0] * len(shards), strict=True))
        numbers = np.empty(sum(shard.summary.usable for shard in shards), np.uint16)
        known: dict[tuple[int, Shape], int] = {}
        start = 0
        for shard, group in numbered:
            keys = [(group, tuple(shape)) for shape, _ in shard.summary.buckets]
            ours = [known.setdefault(key, len(known)) for key in keys]
            end = start + shard.summary.usable
            numbers[start:end] = np.array(ours, np.uint16)[shard.buckets]
            start = end
        return cls(numbers, [shape for _, shape in known])

    def counts(self) -> Counter[Shape]:
        """How many samples have each shape."""
        found: Counter[Shape] = Counter()
        counts = np.bincount(self.numbers, minlength=len(self.shapes)).tolist()
        for shape, count in zip(self.shapes, counts, strict=True):
            found[shape] += count
        return found
