"""The interface of an object store."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class ObjectMissingError(LookupError):
    """No object has this key."""


@dataclass(frozen=True)
class ObjectStat:
    """What is known of a stored object."""

    key: str
    size: int
    """Bytes."""
    sha256: str | None
    """Lower-case hexadecimal digest as verified when it was stored, where the store kept it."""


@dataclass(frozen=True)
class SignedUpload:
    """A PUT that anybody who holds it may do once, until it expires."""

    url: str
    headers: dict[str, str]


class ObjectStore(Protocol):
    """Objects by key. Keys are relative paths with forward slashes and no dot segments.

    Writes are atomic: a reader sees the old object, the new one, or none; never a part.
    """

    def put(self, key: str, body: BinaryIO, *, sha256: str | None = None) -> ObjectStat:
        """Store ``body`` under ``key``; a digest that does not match raises ``ValueError``."""
        ...

    def open(self, key: str) -> Iterator[bytes]:
        """The object in pieces, or ``ObjectMissingError`` before the first."""
        ...

    def stat(self, key: str) -> ObjectStat | None:
        """What is stored under ``key``; none when nothing is."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Objects whose key begins with ``prefix``, in order of their keys."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        ...

    def sign_upload(self, key: str, *, size: int, sha256: str, expires_in: int) -> SignedUpload:
        """Let the holder store exactly these bytes under ``key`` within ``expires_in`` seconds."""
        ...

    def sign_download(self, key: str, *, expires_in: int) -> str:
        """Let the holder read ``key`` within ``expires_in`` seconds."""
        ...
