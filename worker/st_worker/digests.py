"""What a file is, by its digests: whole, in parts, and what proves that this worker has it."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from st_shared.objectstore.multipart import (
    part_bytes,
    part_sizes,
    possession_of_parts,
    possession_of_whole,
)

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class FileDigests:
    """The digests of a file as it was when it was read."""

    size: int
    mtime_ns: int
    sha256: str
    possession: str
    """See ``possession_of_parts``."""
    parts: tuple[str, ...]
    """SHA-256 of each part; none where it is sent in one PUT."""

    def fits(self, path: Path) -> bool:
        """Whether the file has not changed since."""
        found = path.stat()
        return (self.size, self.mtime_ns) == (found.st_size, found.st_mtime_ns)


async def digests_of(path: Path) -> FileDigests:
    """Read a file; ``FileNotFoundError`` when it is gone. What goes in parts is read by two."""
    found = await asyncio.to_thread(path.stat)
    whole = asyncio.to_thread(_sha256, path)
    if part_bytes(found.st_size) is None:
        return FileDigests(
            found.st_size,
            found.st_mtime_ns,
            await whole,
            await asyncio.to_thread(_possession, path),
            (),
        )
    sha256, parts = await asyncio.gather(whole, asyncio.to_thread(_parts, path, found.st_size))
    return FileDigests(
        found.st_size, found.st_mtime_ns, sha256, possession_of_parts(parts), tuple(parts)
    )


def md5_of_part(path: Path, start: int, size: int) -> str:
    """MD5 of ``size`` bytes from ``start`` on."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        _feed(digest, file.fileno(), size)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _possession(path: Path) -> str:
    digest = possession_of_whole()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _parts(path: Path, size: int) -> list[str]:
    found = []
    with path.open("rb", buffering=0) as file:
        for each in part_sizes(size):
            digest = hashlib.sha256()
            _feed(digest, file.fileno(), each)
            found.append(digest.hexdigest())
    return found


def _feed(digest: "hashlib._Hash", descriptor: int, size: int) -> None:
    left = size
    while left and (piece := os.read(descriptor, min(_PIECE_BYTES, left))):
        digest.update(piece)
        left -= len(piece)
