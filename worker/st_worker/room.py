"""Whether the disk of the state folder has room for one more job."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from st_worker.accelerators.probe import GIB
from st_worker.folder import StateFolder
from st_worker.settings import AgentSettings

SLACK = 1.1
"""What must be free before jobs are taken again, as a multiple of the least: so that a disk at the
edge does not open and shut with every line of a log."""
_EXHAUSTED_BYTES = 2**20
"""What is free then is no room: file systems keep a little, or it comes and goes."""


class Room:
    """Judges the disk that holds a folder; used by the sampler's thread and by claims."""

    def __init__(
        self,
        folder: Path,
        least_gb: float,
        *,
        refused_seconds: float = 60.0,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``least_gb`` must be free, GiB.

        For ``refused_seconds`` after a write was refused the disk is taken for full whatever it
        says of its room: there may be a quota, or it takes no more files.
        """
        self._folder, self._least = folder, least_gb * GIB
        self._free, self._clock = free, clock
        self._was_short, self._refused_seconds = False, refused_seconds
        self._refused: tuple[float, str] | None = None

    def lack(self) -> str | None:
        """Why no job is to come here now, in words that change seldom; none: there is room.

        Asks the disk, so it may hang where the disk does.
        """
        refused = self._refused
        if refused is not None and self._clock() - refused[0] < self._refused_seconds:
            return refused[1]
        least = self._least * (SLACK if self._was_short else 1.0)
        try:
            self._was_short = self._free(self._folder) < least
        except OSError as error:
            return f"the disk of {self._folder} does not answer: {error.strerror}"[:300]
        if not self._was_short:
            return None
        return f"less than {self._least / GIB:g} GiB are free on the disk of {self._folder}"[:300]

    def exhaustion(self) -> str | None:
        """Why a program can write nothing more here; none: it can, or the disk does not answer."""
        try:
            is_full = self._free(self._folder) < _EXHAUSTED_BYTES
        except OSError:
            return None
        return f"the disk of {self._folder} is full"[:300] if is_full else None

    def note_refusal(self, error: OSError) -> None:
        """A write failed for want of room: take the disk for full for a while."""
        self._refused = (self._clock(), f"its disk takes nothing more: {error.strerror}"[:300])


def room_of(folder: StateFolder, settings: AgentSettings) -> Room:
    """Of the disk that an agent keeps its state on."""
    seconds = settings.refused_disk_seconds
    return Room(folder.root, settings.min_free_gb, refused_seconds=seconds)
