"""Which entry lies in which file, in 20 bytes an entry."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
_MOST_RECENT = 16_384


class KnownKeys:
    """Keys of 16 bytes with a number each; of equal keys the last one counts."""

    def __init__(self) -> None:
        self._keys: NDArray[np.void] = np.empty(0, f"S{KEY_BYTES}")
        self._numbers = np.empty(0, np.int32)
        self._recent: dict[bytes, int] = {}

    def add(self, keys: Iterable[bytes], number: int) -> None:
        """Note that ``keys`` have ``number``; -1: no longer known."""
        self._recent.update(dict.fromkeys(keys, number))
        if len(self._recent) >= _MOST_RECENT:
            self._merge()

    def find(self, key: bytes) -> int | None:
        """The number of ``key``; none where it is not known."""
        number = self._recent.get(key)
        if number is None:
            wanted = np.array(key, self._keys.dtype)
            place = int(np.searchsorted(self._keys, wanted))
            if place == len(self._keys) or self._keys[place] != wanted:
                return None
            number = int(self._numbers[place])
        return None if number < 0 else number

    def known(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Which of ``keys`` are known; many at once, which is quicker."""
        wanted = np.array(keys, self._keys.dtype)
        places = np.searchsorted(self._keys, wanted)
        found = np.zeros(len(keys), np.bool_)
        is_inside = places < len(self._keys)
        inside = places[is_inside]
        is_same = self._keys[inside] == wanted[is_inside]
        found[is_inside] = is_same & (self._numbers[inside] >= 0)
        if self._recent:
            for place, key in enumerate(keys):
                if (number := self._recent.get(key)) is not None:
                    found[place] = number >= 0
        return found

    def _merge(self) -> None:
        """Sort what came last in among the others."""
        new = np.array(list(self._recent), self._keys.dtype)
        keys = np.concatenate([new, self._keys])
        numbers = np.concatenate([list(self._recent.values()), self._numbers]).astype(np.int32)
        self._keys, first = np.unique(keys, return_index=True)  # the first of equals is the new one
        self._numbers = numbers[first]
        self._recent = {}
