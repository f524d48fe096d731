"""Which bucket each sample belongs to, over the shards of all datasets."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_trainer.data.medium import Bucket, Shape
from st_trainer.data.shard import Shard


@dataclass(frozen=True)
class BucketTable:
    """Two bytes a sample, and a line for each bucket."""

    numbers: NDArray[np.uint16]
    """The bucket of each sample."""
    buckets: list[Bucket]
    """What the samples of each share."""

    @property
    def shapes(self) -> list[Shape]:
        """Of each bucket: the shape of its samples."""
        return [each.shape for each in self.buckets]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many samples each bucket holds."""
        return np.bincount(self.numbers, minlength=len(self.buckets))

    @classmethod
    def of(cls, shards: Iterable[Shard], groups: Iterable[int] | None = None) -> Self:
        """That of the samples in ``shards``, each of which numbers its own buckets.

        Shards of different ``groups`` share none.
        """
        shards = list(shards)
        numbered = list(zip(shards, groups or [0] * len(shards), strict=True))
        numbers = np.empty(sum(shard.summary.usable for shard in shards), np.uint16)
        known: dict[tuple[int, Bucket], int] = {}
        start = 0
        for shard, group in numbered:
            keys = [(group, bucket) for bucket in shard.numbered]
            ours = [known.setdefault(key, len(known)) for key in keys]
            end = start + shard.summary.usable
            numbers[start:end] = np.array(ours, np.uint16)[shard.buckets]
            start = end
        return cls(numbers, [bucket for _, bucket in known])

    def counts(self) -> Counter[Bucket]:
        """How many samples share the same, whatever their group."""
        found: Counter[Bucket] = Counter()
        for bucket, count in zip(self.buckets, self.sizes.tolist(), strict=True):
            found[bucket] += count
        return found
