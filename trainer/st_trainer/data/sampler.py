"""The order in which samples are seen: shuffled anew each epoch, resumable at any batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cursor:
    """How far an endless sequence of epochs has been read."""

    epoch: int = 0
    position: int = 0
    """Places of this epoch that have been read."""


class ShuffledSampler:
    """Gives batches of sample indexes for ever; every epoch holds each sample ``repeats`` times.

    The order of an epoch depends on ``seed`` and its number alone, so the cursor is the whole
    state. A batch may reach over the end of an epoch: batches are always full.
    """

    def __init__(self, repeats: Sequence[int], seed: int, cursor: Cursor | None = None) -> None:
        if not sum(repeats):
            raise ValueError("there are no samples to draw from")
        self._places = np.repeat(np.arange(len(repeats)), repeats)
        self._seed = seed
        self._move(cursor or Cursor())

    @property
    def cursor(self) -> Cursor:
        """Where the next batch begins; hand it to a new sampler to go on from here."""
        return Cursor(self._epoch, self._position)

    def take(self, count: int) -> list[int]:
        """The next ``count`` indexes."""
        taken: list[int] = []
        while len(taken) < count:
            if self._position == len(self._places):
                self._move(Cursor(self._epoch + 1))
            more = self._order[self._position : self._position + count - len(taken)]
            taken += more.tolist()
            self._position += len(more)
        return taken

    def _move(self, cursor: Cursor) -> None:
        self._epoch, self._position = cursor.epoch, cursor.position
        self._order = self._order_of(cursor.epoch)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(self._places)
