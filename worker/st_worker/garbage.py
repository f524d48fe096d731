"""Removes what no attempt needs any more."""

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import structlog

from st_shared.protocol.worker import GarbageReport
from st_worker.folder import StateFolder
from st_worker.model_caches import ModelCaches
from st_worker.removal import opened_folders, remove_tree

log = structlog.get_logger(__name__)

_GIB = 2**30
_YOUNG_SECONDS = 60.0


def collect(
    folder: StateFolder, models: ModelCaches, live: Collection[str], now: float
) -> GarbageReport:
    """Remove the folders of attempts that are over, and what is past the bounds of the caches.

    ``live`` names attempts that are not over; one that has a record is not over either, whether
    or not this agent knows of it. ``now`` is in seconds since the epoch. What cannot be removed
    stays and is logged: an order that is never reported is given for ever.
    """
    removed, freed = 0, 0
    collected: tuple[Callable[[], tuple[int, int]], ...] = (
        lambda: _attempts(folder, live, now),
        lambda: folder.content_cache().shrink(),
        lambda: folder.trainer_cache().trim(),
        lambda: models.shrink(now),
    )
    for each in collected:
        try:
            count, size = each()
        except OSError as error:
            log.warning("garbage.left", why=str(error))
        else:
            removed, freed = removed + count, freed + size
    return GarbageReport(removed=removed, freed_gb=freed / _GIB)


def _attempts(folder: StateFolder, live: Collection[str], now: float) -> tuple[int, int]:
    removed, freed = 0, 0
    for attempt in folder.past_attempts():
        if attempt.root.name in live:
            continue
        with suppress(FileNotFoundError):  # it is being forgotten just now
            if now - attempt.root.stat().st_mtime < _YOUNG_SECONDS:  # or claimed
                continue
            size = size_of(attempt.root)
            if remove_tree(attempt.root):
                removed, freed = removed + 1, freed + size
    return removed, freed


def size_of(root: Path) -> int:
    """Bytes on disk below ``root``; what vanishes, or cannot be looked at, counts nothing."""
    total = 0
    for folder in opened_folders(root):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
