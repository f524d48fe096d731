"""Files in a bucket of S3, R2, Wasabi or MinIO: listed once, fetched when they are wanted."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from st_shared.objectstore import (
    InvalidKeyError,
    ObjectChangedError,
    ObjectMissingError,
    ObjectStore,
    S3Store,
    StoreUnreachableError,
    check_key,
)
from st_shared.spec.dataset import BUCKET_SCHEME
from st_trainer.data.mapped_table import MappedTable, write_table
from st_trainer.data.object_cache import ObjectCache
from st_trainer.data.ranged_file import FIRST_BYTES, Remote
from st_trainer.errors import BadDataError, TrainerError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_SCHEMA = pa.schema([("name", pa.binary()), ("size", pa.int64()), ("version", pa.binary())])


class BucketFiles:
    """Objects of ``store``, which is at ``uri``, without those whose names begin with ``apart``.

    With ``in_pieces`` an index reads of large ones only what it needs.
    """

    def __init__(
        self,
        store: ObjectStore,
        uri: str,
        cache: ObjectCache,
        apart: str | None = None,
        *,
        in_pieces: bool = False,
    ) -> None:
        self._store = store
        self._uri = uri
        self._cache = cache
        self._apart = apart
        self._in_pieces = in_pieces

    @property
    def identity(self) -> str:
        """Server, bucket and prefix, and how an index is made."""
        return f"{self._uri} in pieces" if self._in_pieces else self._uri

    def names(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Those of the listing, which is taken once."""
        for raw in self._listing.values("name"):
            name = os.fsdecode(raw)
            if self._apart and name.startswith(self._apart):
                continue
            parts = name.split("/")
            if wanted(parts[-1]) and not any(part.startswith(".") for part in parts):
                yield name

    def mark(self, name: str) -> bytes:
        """Size and version, as listed."""
        found = self._found(name)
        return _mark(*found) if found else b""

    def open(self, name: str) -> BinaryIO:
        """The object on this machine, fetched first where it is not there yet."""
        found = self._found(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        size, mark = found[0], _mark(*found).hex()
        fetch = partial(self._fetch, name, size)
        return self._cache.open(f"{self._uri}\0{name}\0{mark}", size, fetch)

    def remote(self, name: str) -> Remote | None:
        """The object, where it is larger than the first piece that would be fetched of it."""
        found = self._found(name) if self._in_pieces else None
        if found is None or found[0] <= FIRST_BYTES:
            return None
        size, version = found
        return Remote(size, _mark(size, version), partial(self._piece, name, version))

    def delete(self, name: str) -> None:
        """Remove the object, if it is the one that was listed.

        Raises:
            OSError: it is another one by now, or the store refuses.
        """
        now = next(iter(self._store.list(name)), None)
        if now is None or now.key != name:
            return
        if _mark(now.size, now.version or "") != self.mark(name):
            raise OSError(errno.ESTALE, "it was written anew meanwhile")
        self._store.delete(name)

    def _fetch(self, name: str, size: int, file: BinaryIO) -> None:
        """Write the object into ``file``.

        Raises:
            TrainerError: the store does not answer.
            OSError: the object is gone, or another one since it was listed.
        """
        written = 0
        try:
            for piece in self._store.open(name):
                written += file.write(piece)
        except ObjectMissingError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
        except StoreUnreachableError as error:
            raise TrainerError(f"{self._uri} cannot be read: {error}") from error
        if written != size:
            raise OSError(errno.EIO, f"it has {written} bytes, and had {size} when it was listed")

    def _piece(self, name: str, version: str, start: int, count: int) -> bytes:
        """So many bytes of the object that was listed.

        Raises:
            TrainerError: the store does not answer.
            OSError: the object is gone, or another one since it was listed.
        """
        try:
            found = self._store.read(name, start, count, version=version or None)
        except ObjectMissingError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
        except ObjectChangedError:
            raise OSError(errno.ESTALE, "it was written anew meanwhile") from None
        except StoreUnreachableError as error:
            raise TrainerError(f"{self._uri} cannot be read: {error}") from error
        if len(found) != count:
            raise OSError(errno.EIO, f"{len(found)} bytes came of {count} at {start}")
        return found

    def _found(self, name: str) -> tuple[int, str] | None:
        """Size and version, as listed."""
        row = self._listing.find("name", os.fsencode(name))
        if row is None:
            return None
        version = bytes(self._listing.value(row, "version"))
        return int(self._listing.value(row, "size")), version.decode()

    @cached_property
    def _listing(self) -> MappedTable:
        with tempfile.TemporaryDirectory(prefix="st-listing-") as folder:
            path = Path(folder) / "listing"
            try:
                write_table(path, _SCHEMA, self._listed())
            except StoreUnreachableError as error:
                raise BadDataError(
                    f"training.datasets: {self._uri} cannot be listed: {error}; look at the name "
                    "of the bucket, the keys in AWS's variables or files, and endpoint_url"
                ) from error
            return MappedTable(path)  # what is mapped stays

    def _listed(self) -> Iterator[tuple[bytes, int, bytes]]:
        for found in self._store.list(""):
            try:
                check_key(found.key)
            except InvalidKeyError:  # marks of folders, and names that no file has
                continue
            yield os.fsencode(found.key), found.size, (found.version or "").encode()


def _mark(size: int, version: str) -> bytes:
    """What changes with the content of an object."""
    return hashlib.blake2b(version.encode(), digest_size=16).digest() + size.to_bytes(8, "little")


def connect_bucket(
    uri: str, endpoint_url: str | None, environment: Mapping[str, str]
) -> tuple[ObjectStore, str]:
    """The objects below ``uri``, and what names this place: server, bucket and prefix.

    Raises:
        BadDataError: the address names no bucket, or a prefix that cannot be.
    """
    named = (environment[name] for name in _ENDPOINTS if environment.get(name))
    endpoint = endpoint_url or next(named, None)
    bucket, _, prefix = uri.removeprefix(BUCKET_SCHEME).partition("/")
    if not bucket:
        raise BadDataError(f"training.datasets: {uri}: name a bucket, as in s3://bucket/prefix")
    try:
        store = S3Store.connect(bucket, prefix, endpoint_url=endpoint)
    except (InvalidKeyError, StoreUnreachableError) as error:
        raise BadDataError(f"training.datasets: {uri}: {error}") from error
    return store, f"{endpoint or 'aws'} {uri.rstrip('/')}"
