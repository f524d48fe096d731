"""What trainers keep on this host from job to job: indexes, objects of buckets, encodings.

Each organisation has folders of its own, so that no job finds what another organisation's job has
read. Nothing here is needed: what is removed is made or fetched anew.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from st_worker.removal import remove_tree

RECENT_SECONDS = 3600.0
"""A file that was used within this time stays: a trainer may need it."""
_SHARE = 4
"""By default, one part of so many of the disk."""
_INDEX, _OBJECTS, _ENCODINGS = "index", "objects", "encodings"
_FOLDERS = {
    "ST_INDEX_DIR": _INDEX,
    "ST_DATA_CACHE_DIR": _OBJECTS,
    "ST_CACHE_DIR": _ENCODINGS,
}
"""Variables of the trainer, and the folders that they name."""
_BOUNDS = {"ST_DATA_CACHE_GB": 0.4, "ST_CACHE_GB": 0.5}
"""Shares of the bound that one trainer keeps to by itself; indexes are small."""
_SPARE = 0.9
"""Once the bound is passed, room is made down to this share of it."""


class TrainerCache:
    """Folders below ``root``, of all organisations at most ``max_bytes``.

    While trainers run they may hold more, as each knows of its own organisation alone: room is made
    before each trainer is started, and when garbage is collected.
    """

    def __init__(self, root: Path, max_bytes: int, *, now: Callable[[], float] = time.time) -> None:
        self._root, self._max_bytes, self._now = root, max_bytes, now

    def environment(self, org: str, given: Mapping[str, str]) -> dict[str, str]:
        """What a trainer is told for a job of ``org``; folders are made.

        Where the agent was started with one of these variables, that stands.
        """
        found = {}
        for variable, name in _FOLDERS.items():
            folder = self._root / org / name
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found[variable] = str(folder)
        for variable, share in _BOUNDS.items():
            found[variable] = f"{self._max_bytes * share / 1e9:.3f}"
        return {name: value for name, value in found.items() if name not in given}

    def trim(self) -> tuple[int, int]:
        """Come back within the bound; files removed, bytes freed.

        What was not used for longest goes first; what was used within the hour stays.
        """
        files = sorted(self._files())
        taken = sum(size for _, size, _ in files)
        wanted = self._max_bytes if taken <= self._max_bytes else self._max_bytes * _SPARE
        removed = freed = 0
        for used, size, path in files:
            if taken - freed <= wanted or self._now() - used < RECENT_SECONDS:
                break
            with suppress(FileNotFoundError):
                path.unlink()
                removed, freed = removed + 1, freed + size
        return removed, freed

    def clear(self) -> None:
        """Remove all of it."""
        if self._root.exists():
            remove_tree(self._root)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last use, bytes and path of every file."""
        for place, _, names in os.walk(self._root):
            for name in names:
                path = Path(place, name)
                with suppress(FileNotFoundError):  # a trainer has removed it
                    stat = path.lstat()
                    yield stat.st_mtime, stat.st_size, path


def default_bytes(folder: Path) -> int:
    """A quarter of the disk that ``folder`` is on."""
    return shutil.disk_usage(folder).total // _SHARE
