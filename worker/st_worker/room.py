"""Whether the disk of the state folder has room for one more job, and for which datasets."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from st_shared.content_cache import ContentCache
from st_shared.protocol.content_room import had
from st_worker.accelerators.probe import GIB
from st_worker.folder import StateFolder
from st_worker.settings import AgentSettings

SLACK = 1.1
"""What must be free before jobs are taken again, as a multiple of the least: so that a disk at the
edge does not open and shut with every line of a log."""
_EXHAUSTED_BYTES = 2**20
"""What is free then is no room: file systems keep a little, or it comes and goes."""
CONTENT_SECONDS = 30.0
"""Between two looks at how much room there is for datasets."""


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
        cache: ContentCache | None = None,
    ) -> None:
        """``least_gb`` must be free, GiB; datasets come into the ``cache``.

        For ``refused_seconds`` after a write was refused the disk is taken for full whatever it
        says of its room: there may be a quota, or it takes no more files.
        """
        self._folder, self._least = folder, least_gb * GIB
        self._free, self._clock = free, clock
        self._was_short, self._refused_seconds = False, refused_seconds
        self._refused: tuple[float, str] | None = None
        self._cache = cache
        self._content: tuple[float, float] | None = None
        """When the room for datasets was looked at, and what it was, GiB."""
        self._lacked: tuple[float, int] | None = None

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

    def for_contents(self) -> float | None:
        """GiB that datasets of one job may take, rounded down; none: it is not known.

        Asks the disk, so it may hang where the disk does.
        """
        if self._cache is None:
            return None
        now = self._clock()
        if self._content is None or now - self._content[0] >= CONTENT_SECONDS:
            try:
                capacity = self._cache.capacity(int(self._least))
            except OSError:
                return self._content[1] if self._content else None
            self._content = now, had(capacity / GIB)
        lacked = self._lacked
        if lacked is None or now - lacked[0] >= self._refused_seconds:
            return self._content[1]
        return min(self._content[1], had(0.999 * lacked[1] / GIB))

    def note_lack(self, size: int) -> None:
        """For a while there is less room for datasets than ``size`` bytes, whatever the disk says.

        Others may be in use, or being fetched.
        """
        self._lacked = (self._clock(), size)

    def note_refusal(self, error: OSError) -> None:
        """A write failed for want of room: take the disk for full for a while."""
        self._refused = (self._clock(), f"its disk takes nothing more: {error.strerror}"[:300])


def room_of(folder: StateFolder, settings: AgentSettings) -> Room:
    """Of the disk that an agent keeps its state on."""
    seconds = settings.refused_disk_seconds
    return Room(
        folder.root, settings.min_free_gb, refused_seconds=seconds, cache=folder.content_cache()
    )
