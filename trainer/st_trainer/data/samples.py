"""Samples of a run: what the datasets hold, in the form that the model wants."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.bucket_table import BucketTable
from st_trainer.data.buckets import Size
from st_trainer.data.caption_text import drawn
from st_trainer.data.facts import SampleFacts
from st_trainer.data.index import Index
from st_trainer.data.medium import Bucket, Medium, Shape
from st_trainer.data.reader import Reader
from st_trainer.data.sampler import EpochPart
from st_trainer.data.shard import Column, Shard
from st_trainer.errors import DamagedBucketError, DamagedLaterError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """The samples of one dataset."""

    dataset: DatasetSpec
    reader: Reader
    index: Index

    @property
    def begins_with(self) -> Column:
        """What tells the pictures that its videos begin with from others."""
        return "conditioning" if self.dataset.has_conditioning else "content"

    @property
    def strength(self) -> float:
        """How much the adapter counts while its samples are learned."""
        given = self.dataset.slider_strength
        return 1.0 if given is None else given


@dataclass(frozen=True)
class _Place:
    """Where one sample is found."""

    part: Part
    shard: Shard
    row: int

    @property
    def name(self) -> str:
        """What it is called in its dataset."""
        return self.shard.name(self.row)

    @property
    def facts(self) -> SampleFacts:
        """How its values came out of its file."""
        return self.shard.facts(self.row)


class Samples:
    """Everything usable in the datasets of a run, in an order that is always the same.

    In memory are two numbers a sample, its bucket and how often it repeats; the rest is mapped.
    """

    def __init__(self, parts: Sequence[Part], medium: Medium, sha256: str) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(len(part.index) for part in parts)]
        self._medium = medium
        self.sha256 = sha256
        """Checksum over names, captions, content and facts: a resumed run must find the same."""
        strengths = list(dict.fromkeys(part.strength for part in parts))
        placed = [(shard, part) for part in parts for shard in part.index.shards]
        self._table = BucketTable.of(
            (shard for shard, _ in placed),
            (strengths.index(part.strength) for _, part in placed),
        )
        self._damaged: dict[int, str] = {}
        self._untold: list[str] = []

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
    def shares(self) -> list[EpochPart]:
        """What share of each dataset an epoch holds."""
        return [
            EpochPart(start, end, part.dataset.probability)
            for (start, end), part in zip(pairwise(self._starts), self._parts, strict=True)
        ]

    @property
    def buckets(self) -> NDArray[np.uint16]:
        """The bucket of each sample, a number from 0. Samples of one batch must share it."""
        return self._table.numbers

    @property
    def bucket_counts(self) -> Counter[Bucket]:
        """How many samples each bucket holds, sliders of all strengths together."""
        return self._table.counts()

    @property
    def bucket_sizes(self) -> NDArray[np.int64]:
        """How many samples each bucket holds, by its number."""
        return self._table.sizes

    def never_seen(self, count: int, batch: int) -> int:
        """About how many samples are in buckets of which ``count`` draws fill no whole batch.

        ``batch`` is how many samples, all of one bucket, are seen together.
        """
        buckets = len(self._table.buckets)
        dealt, held = np.zeros(buckets), np.zeros(buckets, np.int64)
        for (start, end), part in zip(pairwise(self._starts), self._parts, strict=True):
            found = np.bincount(self.buckets[start:end], minlength=buckets)
            held += found
            dealt += found * part.dataset.repeats * part.dataset.probability
        return int(held[dealt / dealt.sum() * count < batch].sum())

    def captions_at(self, indexes: Sequence[int], seed: Sequence[int] = (0,)) -> list[str]:
        """A caption of each sample at ``indexes``; which one follows from ``seed`` and place."""
        return [
            drawn(each.shard.captions_of(each.row), each.part.dataset.captions, [*seed, place])
            for place, each in enumerate(self._at(indexes))
        ]

    def caption_dropout(self, indexes: Sequence[int], usual: float) -> list[float]:
        """The share of captions that is left out, for each sample at ``indexes``."""
        own = (each.part.dataset.captions.dropout for each in self._at(indexes))
        return [usual if share is None else share for share in own]

    def names(self, indexes: Sequence[int]) -> list[str]:
        """File names of the samples at ``indexes``."""
        return [each.name for each in self._at(indexes)]

    def shapes(self, indexes: Sequence[int]) -> list[Shape]:
        """Shapes of the values at ``indexes``."""
        return [self._bucket(index).shape for index in indexes]

    def every_shape(self) -> Iterator[Shape]:
        """``shapes`` of all samples."""
        return map(self._table.shapes.__getitem__, self.buckets)

    def values(self, indexes: Sequence[int]) -> Tensor:
        """Samples at ``indexes``, all of one bucket, ``(B, C, ...)``, -1 to 1.

        Raises:
            DamagedLaterError: one is damaged, which nobody has seen before.
        """
        tensor = torch.from_numpy(np.stack(list(self._each(indexes, self._values))))
        return tensor if tensor.is_floating_point() else tensor.float() / 127.5 - 1

    def facts(self, indexes: Sequence[int]) -> list[SampleFacts]:
        """How the values at ``indexes`` came out of their files."""
        return [each.facts for each in self._at(indexes)]

    def contents(self, indexes: Sequence[int]) -> list[bytes]:
        """What tells the values of each from all others, whatever their files are called."""
        return [each.shard.content_of(each.row, "content") for each in self._at(indexes)]

    def conditioning_contents(self, indexes: Sequence[int]) -> list[bytes]:
        """The same of their conditioning pictures."""
        return [each.shard.content_of(each.row, "conditioning") for each in self._at(indexes)]

    def every_content(self, column: Column) -> Iterator[bytes]:
        """``contents`` or ``conditioning_contents`` of all samples, shard by shard."""
        for part in self._parts:
            for shard in part.index.shards:
                yield from shard.contents(column)

    def masks(self, indexes: Sequence[int]) -> Tensor:
        """Masks at ``indexes``, ``(B, 1, H, W)``, 0 to 1; 1 everywhere where there is none."""
        places = zip(self._at(indexes), self._areas(indexes), strict=True)
        found = [each.part.reader.mask(each.name, size, each.facts) for each, size in places]
        return torch.stack(found)

    def conditioning(self, indexes: Sequence[int]) -> Tensor:
        """Conditioning pictures at ``indexes``, all of one bucket, ``(B, 3, H, W)``, 0 to 1.

        Height and width are those of their samples, or their own.

        Raises:
            DamagedLaterError: one is damaged, which nobody has seen before.
        """
        return torch.stack(list(self._each(indexes, self._conditioning)))

    def sound(self, indexes: Sequence[int]) -> list[int]:
        """``indexes``, with the next sample of its bucket in place of each known to be damaged.

        The one that is found by and by, as more damage is, does not depend on what came before.

        Raises:
            DamagedBucketError: none of a bucket is left.
        """
        return [self._stand_in(index) if index in self._damaged else index for index in indexes]

    @property
    def has_sound(self) -> bool:
        """Whether any sample is not known to be damaged."""
        return len(self._damaged) < len(self)

    def newly_damaged(self) -> list[str]:
        """Samples that were found to be damaged since this was asked last, each with the reason."""
        found, self._untold = self._untold, []
        return found

    def first_frames(self, indexes: Sequence[int]) -> Tensor:
        """Pictures that the videos at ``indexes`` begin with, ``(B, 3, H, W)``, 0 to 1.

        Those of a dataset with conditioning pictures; else the first frame of each.

        Raises:
            DamagedLaterError: one is damaged, which nobody has seen before.
        """
        return torch.stack(list(self._each(indexes, self._first_frame)))

    def first_frame_contents(self, indexes: Sequence[int]) -> list[bytes]:
        """What tells each of them from all others; that of a video stands for its first frame."""
        return [
            each.shard.content_of(each.row, each.part.begins_with) for each in self._at(indexes)
        ]

    def every_first_frame(self) -> Iterator[bytes]:
        """``first_frame_contents`` of all samples, shard by shard."""
        for part in self._parts:
            for shard in part.index.shards:
                yield from shard.contents(part.begins_with)

    def regularised(self, indexes: Sequence[int]) -> list[bool]:
        """Which samples at ``indexes`` are of a dataset for prior regularisation."""
        return [each.part.dataset.regularisation for each in self._at(indexes)]

    def strength(self, indexes: Sequence[int]) -> float:
        """How much the adapter counts for the samples at ``indexes``, all of one bucket."""
        return self._place(indexes[0]).part.strength

    def _each(self, indexes: Sequence[int], read: Callable[[int], T]) -> Iterator[T]:
        """What ``read`` gives for each, which notes the first that is damaged."""
        for position, index in enumerate(indexes):
            try:
                yield read(index)
            except DamagedLaterError as error:
                if index not in self._damaged:
                    self._damaged[index] = error.reason
                    self._untold.append(f"{self._place(index).name}: {error.reason}")
                error.position = position
                raise

    def _stand_in(self, index: int) -> int:
        same = np.flatnonzero(self.buckets == self.buckets[index])
        start = int(np.searchsorted(same, index))
        for other in np.roll(same, -start).tolist():
            if other not in self._damaged:
                return int(other)
        raise DamagedBucketError(
            f"all {len(same)} samples of the shape of {self._place(index).name} are damaged; "
            f"this one: {self._damaged[index]}"
        )

    def _conditioning(self, index: int) -> Tensor:
        place = self._place(index)
        bucket = self._bucket(index)
        size = (*bucket.references, self._medium.area(bucket.shape))[0]
        return place.part.reader.conditioning(place.name, size, place.facts)

    def _at(self, indexes: Sequence[int]) -> list[_Place]:
        return [self._place(index) for index in indexes]

    def _place(self, index: int) -> _Place:
        number = bisect_right(self._starts, index) - 1
        part = self._parts[number]
        return _Place(part, *part.index.at(index - self._starts[number]))

    def _areas(self, indexes: Sequence[int]) -> Iterator[Size]:
        """Height and width of what lies beside the samples."""
        return map(self._medium.area, self.shapes(indexes))

    def _first_frame(self, index: int) -> Tensor:
        place = self._place(index)
        if place.part.dataset.has_conditioning:
            return self._conditioning(index)
        frame = place.part.reader.first_frame(place.name, self._bucket(index).shape)
        return torch.from_numpy(frame).float() / 255

    def _values(self, index: int) -> NDArray[Any]:
        place = self._place(index)
        return place.part.reader.values(place.name, self._bucket(index).shape)

    def _bucket(self, index: int) -> Bucket:
        bucket: Bucket = self._table.buckets[self.buckets[index]]
        return bucket
