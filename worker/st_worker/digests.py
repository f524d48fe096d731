"""What a file is, by its digests: whole, in parts, and what proves that this worker has it."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    possession: str | None
    """Proves that this worker has the file; none where that is told only when it is asked for."""

    def fits(self, path: Path) -> bool:
        """Whether the file has not changed since."""
        found = path.stat()
        return (self.size, self.mtime_ns) == (found.st_size, found.st_mtime_ns)


async def digests_of(path: Path) -> FileDigests:
    """Read a file; ``FileNotFoundError`` when it is gone."""
    found = await asyncio.to_thread(path.stat)
    sha256 = await asyncio.to_thread(_sha256, path)
    is_whole = part_bytes(found.st_size) is None
    possession = await asyncio.to_thread(_possession, path) if is_whole else None
    return FileDigests(found.st_size, found.st_mtime_ns, sha256, possession)


async def proven(path: Path, digests: FileDigests) -> FileDigests:
    """The same with the proof that this worker has a file of several parts, which reads it."""
    sizes = part_sizes(digests.size)
    parts = await asyncio.to_thread(sha256_of_parts, path, sizes, range(1, len(sizes) + 1))
    return replace(digests, possession=possession_of_parts(parts))


def sha256_of_parts(path: Path, sizes: Sequence[int], numbers: Sequence[int]) -> list[str]:
    """SHA-256 of consecutive parts of a file that is cut into ``sizes``, bytes."""
    found = []
    with path.open("rb", buffering=0) as file:
        file.seek((numbers[0] - 1) * sizes[0])
        for number in numbers:
            digest = hashlib.sha256()
            _feed(digest, file.fileno(), sizes[number - 1])
            found.append(digest.hexdigest())
    return found


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


def _feed(digest: "hashlib._Hash", descriptor: int, size: int) -> None:
    left = size
    while left and (piece := os.read(descriptor, min(_PIECE_BYTES, left))):
        digest.update(piece)
        left -= len(piece)
