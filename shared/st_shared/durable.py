"""Files that are whole or absent, also after a crash: written aside, synced, renamed.

The standard library alone, so that the smallest processes may use it.
"""

import hashlib
import os
from pathlib import Path

PRIVATE = 0o600
"""Mode of a file that its owner alone may read."""


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to disk; POSIX syncs both alike."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(
    path: Path, content: str | bytes, *, mode: int = PRIVATE, synced: bool = True
) -> None:
    """Put ``content`` at ``path`` in one step; one writer at a time.

    Readers see the old file or the new one. After a power cut it may be the old one; where that
    matters, use ``write_durably``. Without ``synced`` the disk is not waited for, which may take
    seconds while much else is written; then a power cut may leave a damaged file.
    """
    aside = path.with_name(f".{path.name}.partial")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        if synced:
            os.fsync(file.fileno())
    aside.replace(path)


def write_durably(path: Path, content: str | bytes, *, mode: int = PRIVATE) -> None:
    """Put ``content`` at ``path`` in one step, to stay there through a power cut."""
    write_whole(path, content, mode=mode)
    sync(path.parent)


def move_durably(aside: Path, path: Path) -> None:
    """Give the finished file ``aside`` the name ``path``, to stay through a power cut."""
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
