"""How much a cache may hold: what was not used for longest goes, and what is in use stays."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock

from st_trainer.caching.shard_file import PARTIAL, SUFFIX

RECENT_SECONDS = 3600.0
"""A file that was used within this time stays: a run may need it."""
_LOOKED_AFTER = 16
"""Files after which a process looks how much others have written."""
_SPARE = 0.9
"""Once the bound is passed, room is made down to this share of it, as far as that goes."""


class Room:
    """The files of all encoders below ``root``, at most ``limit`` bytes; processes may share it."""

    def __init__(self, root: Path, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._root, self._limit, self._clock = root, limit, clock
        self._taken: int | None = None
        """Bytes that are there as far as this process knows."""
        self._admitted = 0
        self._lock = Lock()

    def admit(self, size: int) -> bool:
        """Whether ``size`` bytes more may be written; what is old makes room for them."""
        with self._lock:
            is_due = self._admitted % _LOOKED_AFTER == 0
            if self._taken is None or is_due or self._taken + size > self._limit:
                self._taken = self._make(size)
            if self._taken + size > self._limit:
                return False
            self._taken += size
            self._admitted += 1
            return True

    def _make(self, size: int) -> int:
        """Remove what is old until ``size`` bytes fit; gives the bytes that stay."""
        found = sorted(self._files())
        taken = sum(bytes_ for _, bytes_, _ in found)
        wanted = self._limit if taken + size <= self._limit else self._limit * _SPARE
        for used, bytes_, path in found:
            is_torn = path.name.endswith(PARTIAL)  # by a process that was killed
            if self._clock() - used < RECENT_SECONDS or (taken + size <= wanted and not is_torn):
                continue
            path.unlink(missing_ok=True)
            taken -= bytes_
        return taken

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self._root.glob("*/*/*"):
            if path.name.endswith((SUFFIX, PARTIAL)):
                try:
                    stat = path.stat()
                except FileNotFoundError:  # another process has removed it
                    continue
                yield stat.st_mtime, stat.st_size, path
