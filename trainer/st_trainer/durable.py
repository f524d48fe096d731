"""Files that are whole or absent, also after a power cut: written aside, synced, renamed."""

import hashlib
import os
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def sync_file(path: Path) -> None:
    """Force the bytes of ``path`` to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_folder = sync_file
"""Force the entries of a folder (names and renames) to disk; POSIX syncs a folder alike."""


def write_durably(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step: readers see the old file or the new one."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(content)
    move_durably(aside, path)


def move_durably(aside: Path, path: Path) -> None:
    """Sync the file ``aside`` and give it the name ``path``."""
    sync_file(aside)
    aside.replace(path)
    sync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
