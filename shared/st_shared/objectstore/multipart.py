"""Uploads in parts: how a file is cut, what is known of a part, and what every store offers.

A part is stored once its bytes are those that its URL was signed for. An upload becomes an object
only by ``complete``, which compares every part first; until then nobody can read a byte of it.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from st_shared.objectstore.store import DigestMismatchError, ObjectStat, SignedUpload

SINGLE_PUT_BYTES = 32 << 20
"""Largest file that is sent in one PUT."""

PART_BYTES = 16 << 20
"""Size of a part, unless a file would have more than ``MOST_PARTS`` of them."""

MOST_PARTS = 10_000
"""Parts of an upload; a limit of S3."""

_MD5 = re.compile(r"[0-9a-f]{32}")
_MIB = 1 << 20


class UploadMissingError(LookupError):
    """No upload has this id: it was completed, aborted, or never begun."""


@dataclass(frozen=True)
class PartDigest:
    """What a part of a file must be."""

    number: int
    """From 1."""
    size: int
    """Bytes."""
    sha256: str
    md5: str | None = None
    """Lets a store prove the part that keeps no SHA-256 of it."""


@dataclass(frozen=True)
class StoredPart:
    """What a store tells of a part that it holds; a digest is none where it does not know it."""

    number: int
    size: int
    sha256: str | None
    md5: str | None

    def is_proven(self, wanted: PartDigest) -> bool:
        """Whether the bytes are certainly the wanted ones."""
        if self.size != wanted.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == wanted.sha256
        return self.md5 is not None and self.md5 == wanted.md5


@dataclass(frozen=True)
class OpenUpload:
    """An upload that was begun and neither completed nor aborted."""

    key: str
    upload_id: str
    begun_at: datetime


class MultipartUploads(Protocol):
    """Uploads in parts of one store; keys as in ``ObjectStore``."""

    def begin(self, key: str, *, size: int, sha256: str) -> str:
        """Begin an upload that shall become the object ``key``; its id."""
        ...

    def sign_part(
        self, key: str, upload_id: str, part: PartDigest, *, expires_in: int
    ) -> SignedUpload:
        """Let the holder store exactly this part within ``expires_in`` seconds, again and again."""
        ...

    def parts(self, key: str, upload_id: str) -> list[StoredPart]:
        """What has arrived, by number.

        Raises:
            UploadMissingError: there is no such upload.
        """
        ...

    def complete(
        self, key: str, upload_id: str, parts: Sequence[PartDigest], *, sha256: str
    ) -> ObjectStat:
        """Make the object of all its parts, in one step.

        Raises:
            DigestMismatchError: a part is missing or another, and the upload stays; or the whole
                is another, and nothing stays.
            UploadMissingError: there is no such upload.
        """
        ...

    def abort(self, key: str, upload_id: str) -> None:
        """Drop the upload and its parts; nothing happens when there is none."""
        ...

    def unfinished(self) -> Iterator[OpenUpload]:
        """Every upload that was begun below this store's prefix and is neither."""
        ...


def part_bytes(size: int) -> int | None:
    """How long each part of a file but the last is; none: it is sent in one PUT."""
    if size <= SINGLE_PUT_BYTES:
        return None
    least = -(-size // MOST_PARTS)
    return max(PART_BYTES, -(-least // _MIB) * _MIB)


def part_sizes(size: int, each: int | None = None) -> list[int]:
    """The sizes of all parts of a file, in order; ``each``: of a part, where that was told."""
    each = each or part_bytes(size) or max(size, 1)
    return [min(each, size - start) for start in range(0, size, each)]


def must_be_proven(key: str, stored: Sequence[StoredPart], wanted: Sequence[PartDigest]) -> None:
    """Refuse parts that are missing, too many, or not certainly the wanted ones.

    Raises:
        DigestMismatchError: the first such part, by number.
    """
    found = {part.number: part for part in stored}
    for part in wanted:
        held = found.pop(part.number, None)
        if held is None:
            raise DigestMismatchError(f"{key}: part {part.number} has not arrived")
        if not held.is_proven(part):
            raise DigestMismatchError(f"{key}: part {part.number} is not what was announced")
    if found:
        raise DigestMismatchError(f"{key}: part {min(found)} was never announced")


def possession_of_parts(sha256s: Sequence[str]) -> str:
    """What proves that somebody has a file of several parts: SHA-256 over theirs.

    The digest of a file is shown to people and stands in manifests; this one never is, and it
    cannot be computed from that.
    """
    return hashlib.sha256(b"".join(map(bytes.fromhex, sha256s))).hexdigest()


def possession_of_whole() -> "hashlib._Hash":
    """The same for a file of one part: a digest to be fed with its bytes."""
    return hashlib.sha256(b"possession of a file\n")


def md5_of_etag(etag: str) -> str | None:
    """The MD5 in an ETag; none where the server makes it of something else."""
    bare = etag.strip('"').lower()
    return bare if _MD5.fullmatch(bare) else None
