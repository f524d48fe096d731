"""Holes at the beginning of a file: its bytes go back to the disk, and all offsets stay."""

import ctypes
import errno
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)

GRAIN_BYTES = 2**20
"""Holes end at multiples of this, which every file system has as multiples of its blocks."""
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM}
"""Answers of file systems that know no holes."""


def punch(path: Path, end: int) -> bool:
    """Give the first ``end`` bytes of a file back to the disk; they read as zeros from now on.

    False where the file system cannot: then the file only grows.
    """
    fallocate = _fallocate()
    if fallocate is None:
        return False
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, 0, end) == 0:
            return True
        code = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if code not in _CANNOT:
        raise OSError(code, os.strerror(code), str(path))
    log.debug("journal.no_holes", path=str(path), why=os.strerror(code))
    return False


def first_byte(descriptor: int, offset: int) -> int:
    """The first offset from ``offset`` on that is not in a hole; the size if all the rest is."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole, or the end of the file
            return max(offset, os.fstat(descriptor).st_size)
        if error.errno in _CANNOT:
            return offset
        raise


@cache
def _fallocate() -> Any:
    """The call of Linux; none elsewhere. Python itself has only the one that reserves."""
    if not sys.platform.startswith("linux"):
        return None
    found = ctypes.CDLL(None, use_errno=True).fallocate64
    found.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    found.restype = ctypes.c_int
    return found
