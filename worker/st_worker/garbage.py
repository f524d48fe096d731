"""Removes what no attempt needs any more."""

import shutil
from collections.abc import Collection
from pathlib import Path

from st_shared.protocol.worker import GarbageReport
from st_worker.folder import StateFolder

_GIB = 2**30
_YOUNG_SECONDS = 60.0


def collect(folder: StateFolder, live: Collection[str], now: float) -> GarbageReport:
    """Remove the folders of attempts that are over, and what is past the bound of the cache.

    ``live`` names attempts that are not over; one that has a record is not over either, whether
    or not this agent knows of it. ``now`` is in seconds since the epoch.
    """
    removed, freed = 0, 0
    for attempt in sorted(folder.attempts.iterdir()):
        if attempt.name in live or (attempt / "attempt.json").exists():
            continue
        if now - attempt.stat().st_mtime < _YOUNG_SECONDS:  # it may be claimed just now
            continue
        size = size_of(attempt)
        shutil.rmtree(attempt)
        removed, freed = removed + 1, freed + size
    entries, bytes_freed = folder.content_cache().shrink()
    removed, freed = removed + entries, freed + bytes_freed
    return GarbageReport(removed=removed, freed_gb=freed / _GIB)


def size_of(root: Path) -> int:
    """Bytes on disk below ``root``; what vanishes meanwhile counts nothing."""
    total = 0
    for path in root.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
