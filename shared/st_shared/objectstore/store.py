"""The interface of an object store."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from st_shared.objectstore.multipart import MultipartUploads

PIECE_BYTES = 1 << 20
"""Size of the pieces in which objects are read and written."""


class ObjectMissingError(LookupError):
    """No object has this key."""


class ObjectChangedError(ValueError):
    """The object was written anew since its version was told."""


class StoreUnreachableError(ConnectionError):
    """The store does not answer, or refuses who asks; the message says what it said."""


class DigestMismatchError(ValueError):
    """The bytes are not those that were announced; nothing was stored."""


class ObjectTooLargeError(ValueError):
    """More bytes than this store takes in one upload."""


@dataclass(frozen=True)
class ObjectStat:
    """What is known of a stored object."""

    key: str
    size: int
    """Bytes."""
    sha256: str | None
    """Lower-case hexadecimal digest as verified when it was stored, where the store kept it."""
    version: str | None = field(default=None, compare=False)
    """What is another one once the object was written anew, where a listing tells it."""


@dataclass(frozen=True)
class SignedUpload:
    """A PUT that anybody who holds it may do once, until it expires."""

    url: str
    headers: dict[str, str]
    """Headers that the PUT must carry."""


class ObjectStore(Protocol):
    """Objects by key. Keys are relative paths with forward slashes and no dot segments.

    Writes are atomic: a reader sees the old object, the new one, or none; never a part.
    Every method that takes a key raises ``InvalidKeyError`` for one that ``check_key`` refuses.
    A key is never a folder of another: beside ``a/b`` there is no ``a``.
    """

    @property
    def uploads(self) -> "MultipartUploads":
        """Uploads in parts, for files that one PUT should not carry."""
        ...

    def put(self, key: str, body: BinaryIO, *, sha256: str | None = None) -> ObjectStat:
        """Store ``body`` under ``key``; ``DigestMismatchError`` when the digest is another."""
        ...

    def open(self, key: str) -> Iterator[bytes]:
        """The object in pieces; ``ObjectMissingError`` at once when there is none."""
        ...

    def read(self, key: str, start: int, count: int, *, version: str | None = None) -> bytes:
        """``count`` bytes from ``start``, all within the object: of others servers say many things.

        Args:
            version: what a listing told, if it told one: bytes of another are not given.

        Raises:
            ObjectMissingError: there is no such object.
            ObjectChangedError: it has another version by now.
        """
        ...

    def stat(self, key: str) -> ObjectStat | None:
        """What is stored under ``key``; none when nothing is.

        The digest is always given and true of the stored bytes: a store that did not verify it
        reads the object.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Objects whose key begins with ``prefix``, in order of their keys.

        The digest may be none where telling it would cost a request an object.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        ...

    def sign_upload(self, key: str, *, size: int, sha256: str, expires_in: int) -> SignedUpload:
        """Let the holder store exactly these bytes under ``key`` within ``expires_in`` seconds.

        Raises:
            ObjectTooLargeError: this store does not take that many in one upload.
        """
        ...

    def sign_download(self, key: str, *, expires_in: int) -> str:
        """Let the holder read ``key`` within ``expires_in`` seconds."""
        ...
