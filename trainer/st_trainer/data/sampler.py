"""The order in which samples are seen: shuffled anew each epoch, resumable at any batch."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cursor:
    """How far an endless sequence of epochs has been read."""

    epoch: int = 0
    position: int = 0
    """Places of this epoch that have been read."""
    waiting: Sequence[int] = ()
    """Samples that were read, and wait until a batch of their bucket is full."""


@dataclass(frozen=True)
class EpochPart:
    """Samples of which an epoch holds a share, others each time."""

    start: int
    end: int
    """Numbers of the samples, the last one excluded."""
    probability: float
    """The share; the samples that it chooses are seen as often as they repeat."""

    @property
    def chosen(self) -> int:
        """How many samples an epoch holds; at least one where there are any."""
        count = self.end - self.start
        return min(count, max(1, round(self.probability * count)))


class ShuffledSampler:
    """Gives batches of sample indexes for ever; every epoch holds each sample ``repeats`` times.

    Of a ``EpochPart`` it holds only a share.

    The order of an epoch depends on ``seed`` and its number alone, so the cursor is the whole
    state. The samples of an epoch are dealt out by bucket, and a batch is given once a bucket has
    enough for it: batches are always full, and none mixes buckets. What is left at the end of an
    epoch waits for the next. With one bucket, batches follow the order as it is.
    """

    def __init__(
        self,
        repeats: Sequence[int] | NDArray[np.uint16],
        seed: int,
        cursor: Cursor | None = None,
        buckets: Sequence[Hashable] | NDArray[np.uint16] | None = None,
        parts: Sequence[EpochPart] = (),
    ) -> None:
        """``buckets`` names the bucket of each sample; without, all share one.

        ``parts``, each with samples that repeat alike, are seen by their share alone.
        """
        self._repeats = np.asarray(repeats, np.uint16)
        self._parts = [part for part in parts if part.probability < 1 and part.end > part.start]
        left_out = sum(
            (part.end - part.start - part.chosen) * int(self._repeats[part.start])
            for part in self._parts
        )
        self._places = int(self._repeats.sum(dtype=np.int64)) - left_out
        if not self._places:
            raise ValueError("there are no samples to draw from")
        self._seed = seed
        self._buckets = buckets
        self._waiting: dict[Hashable, list[int]] = {}
        cursor = cursor or Cursor()
        for index in cursor.waiting:
            self._deal(index)
        self._move(cursor.epoch, cursor.position)

    @property
    def cursor(self) -> Cursor:
        """Where the next batch begins; hand it to a new sampler to go on from here."""
        waiting = tuple(index for bucket in self._waiting.values() for index in bucket)
        return Cursor(self._epoch, self._position, waiting)

    def take(self, count: int) -> list[int]:
        """The next ``count`` indexes, all of one bucket."""
        taken: list[int] = []
        while len(taken) < count:
            bucket = self._deal(self._next())
            if len(bucket) >= count:
                taken = bucket[:count]
                del bucket[:count]
        return taken

    def _next(self) -> int:
        if self._position == self._places:
            self._move(self._epoch + 1, 0)
        self._position += 1
        return int(self._order[self._position - 1])

    def _deal(self, index: int) -> list[int]:
        """Put a sample to those of its bucket that wait, and give them."""
        name = 0 if self._buckets is None else self._buckets[index]
        bucket = self._waiting.setdefault(name, [])
        bucket.append(index)
        return bucket

    def _move(self, epoch: int, position: int) -> None:
        self._epoch, self._position = epoch, position
        self._order = self._order_of(epoch)

    def _order_of(self, epoch: int) -> NDArray[np.uint32]:
        """The samples of an epoch as they come; four bytes each."""
        generator = np.random.default_rng([self._seed, epoch])
        repeats = self._repeats
        if self._parts:
            repeats = repeats.copy()
            for part in self._parts:
                count = part.end - part.start
                unseen = generator.permutation(count)[part.chosen :]
                repeats[part.start + unseen] = 0
        order = np.repeat(np.arange(len(repeats), dtype=np.uint32), repeats)
        generator.shuffle(order)
        return order
