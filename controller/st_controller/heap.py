"""Has the C library keep what threads free in few places, from which others take it again.

Left to itself glibc gives each of a few dozen threads a heap of its own, in which what a burst of
requests took stays for ever: 5 to 25 KiB for each worker that joined. Threads of a controller take
turns at the interpreter, so they seldom wait for one another in the allocator.
"""

import ctypes
import os

HEAPS = 2
_M_ARENA_MAX = -8
"""As ``malloc.h`` of glibc calls it."""


def share_heaps() -> bool:
    """Do so, before there are threads; whether the C library can and nobody said otherwise."""
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    return adjust is not None and adjust(_M_ARENA_MAX, HEAPS) == 1


def give_back() -> None:
    """Return to the system what is free in the heaps, where the C library can; milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
