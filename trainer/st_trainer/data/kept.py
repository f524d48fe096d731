"""Decoded samples in memory, up to a bound."""

from collections.abc import Hashable
from threading import Lock
from typing import Any

from numpy.typing import NDArray


class Kept:
    """The first values that were offered and fit into ``limit`` bytes; they stay to the end.

    What discovery decodes is kept here, so that the first epoch does not decode it again.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._values: dict[Hashable, NDArray[Any]] = {}
        self._lock = Lock()

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """What was kept of a sample."""
        return self._values.get(key)

    def offer(self, key: Hashable, values: NDArray[Any]) -> None:
        """Keep ``values`` where there is room."""
        with self._lock:
            if values.nbytes <= self._left and key not in self._values:
                self._values[key] = values
                self._left -= values.nbytes

    def forget(self, key: Hashable) -> None:
        """Give the room of a sample back."""
        with self._lock:
            values = self._values.pop(key, None)
            self._left += 0 if values is None else values.nbytes
