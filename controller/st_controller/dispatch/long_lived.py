"""Keeps the garbage collector from looking through a long queue again and again."""

import gc

from st_controller.heap import give_back

YOUNG = 10_000
"""Objects that are made before the youngest are looked through."""
STEP = 5_000
"""Jobs that come before they are put where the collector does not look any more."""
THOROUGH = 60
"""Sweeps between two looks through everything, which may take half a second."""

_NEVER = 1_000_000_000


class LongLived:
    """What a leader keeps in memory stays for hours, and counting references frees most of it.

    Left to itself, the collector looks through all of it whenever a quarter has come new: tenths of
    a second with a long queue, in the middle of everything. So while a process leads, old objects
    are looked through when it says so: those that have come since the last time, and no others,
    until the queue is short again or is read anew.

    That is not often: what is under way at that moment is put aside as well, and stays there when
    it has become garbage. Done every few seconds, while thousands of workers joined, it cost each
    of them 12 KiB.
    """

    def __init__(self) -> None:
        self._settled = self._sweeps = 0
        self._usual = gc.get_threshold()

    def begin(self) -> None:
        """What was read just now will stay."""
        gc.unfreeze()
        gc.set_threshold(YOUNG, self._usual[1], _NEVER)
        self._settle(0)

    def note(self, jobs: int) -> None:
        """So many jobs wait; where many have come, they will stay."""
        if jobs >= self._settled + STEP:
            self._settle(jobs)
        elif jobs < self._settled // 2:
            gc.unfreeze()  # what has become garbage among them can go now
            self._settle(jobs)

    def sweep(self) -> None:
        """Free what has become garbage since; a matter of milliseconds.

        What is left has come to stay, such as the streams of thousands of workers: through that the
        collector looks once in a while.
        """
        self._sweeps += 1
        if self._sweeps % THOROUGH == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
        give_back()

    def end(self) -> None:
        """Leave everything to the collector again."""
        gc.set_threshold(*self._usual)
        gc.unfreeze()

    def _settle(self, jobs: int) -> None:
        self._settled = jobs
        gc.collect()
        gc.freeze()
