"""Objects as plain files below one folder.

``objects/`` holds the bytes under their keys, ``digests/`` a record of each, ``incoming/`` what
is being written, ``uploads/`` what comes in parts. A record names the size and the modification
time (nanoseconds) of the file that it describes. It is written before the file gets its name, so
after a crash between the two it fits no file, and the digest is made anew from the bytes: a wrong
one is never told.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Self
from uuid import uuid4

from st_shared.clock import Clock, utc_now
from st_shared.objectstore.key import InvalidKeyError, check_key
from st_shared.objectstore.local_multipart import LocalUploads, PartWriter
from st_shared.objectstore.signature import SignedGrant, signed_url, verify_grant
from st_shared.objectstore.store import (
    PIECE_BYTES,
    DigestMismatchError,
    ObjectMissingError,
    ObjectStat,
    SignedUpload,
)

_ABANDONED_SECONDS = 86_400


class LocalStore:
    """An ``ObjectStore`` in a folder; one process or several may use it at once.

    Args:
        root: the folder; made when it is missing.
        sign_key: secret of the signed URLs, at least 32 bytes.
        base_url: put before signed URLs, such as ``https://st.example``; empty: relative ones.
        clock: tells when a signed URL expires.
    """

    def __init__(
        self, root: Path, sign_key: bytes, base_url: str = "", *, clock: Clock = utc_now
    ) -> None:
        if len(sign_key) < 32:
            raise ValueError(f"sign_key has {len(sign_key)} bytes; give at least 32 random ones")
        self._objects, self._digests = root / "objects", root / "digests"
        self._incoming = root / "incoming"
        self._sign_key, self._base_url, self._clock = sign_key, base_url.rstrip("/"), clock
        for folder in (self._objects, self._digests, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        self._forget_abandoned()
        self.uploads = LocalUploads(root / "uploads", self._publish, self._url, clock)

    def put(self, key: str, body: BinaryIO, *, sha256: str | None = None) -> ObjectStat:
        """Store ``body`` under ``key``; ``DigestMismatchError`` when the digest is another."""
        with self.begin(key, None, sha256) as writer:
            while piece := body.read(PIECE_BYTES):
                writer.write(piece)
            return writer.commit()

    def begin(self, key: str, size: int | None, sha256: str | None) -> "ObjectWriter":
        """Start writing ``key``; what ``commit`` finds unlike ``size`` or ``sha256`` is dropped."""
        target = self._path(key)
        self._refuse_nesting(key, target)
        return ObjectWriter(self._incoming / uuid4().hex, key, size, sha256, self._publish)

    def begin_granted(self, grant: SignedGrant) -> "ObjectWriter | PartWriter":
        """Start writing what ``verify`` granted: an object, or a part of an upload."""
        if grant.upload is not None:
            return self.uploads.open_part(grant)
        return self.begin(grant.key, grant.size, grant.sha256)

    async def receive(self, grant: SignedGrant, body: AsyncIterable[bytes]) -> ObjectStat:
        """Store an upload that ``verify`` granted, off the event loop, as its bytes arrive."""
        writer = await asyncio.to_thread(self.begin_granted, grant)
        try:
            waiting = bytearray()
            async for piece in body:
                waiting += piece
                if len(waiting) >= PIECE_BYTES:
                    await asyncio.to_thread(writer.write, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(writer.write, bytes(waiting))
            return await asyncio.to_thread(writer.commit)
        finally:
            writer.abort()

    def open(self, key: str) -> Iterator[bytes]:
        """The object in pieces; ``ObjectMissingError`` at once when there is none."""
        return _pieces(self.path(key))

    def read(self, key: str, start: int, count: int, *, version: str | None = None) -> bytes:
        """``count`` bytes from ``start``; listings here tell no version."""
        del version
        with self.path(key).open("rb") as file:
            file.seek(start)
            return file.read(count)

    def path(self, key: str) -> Path:
        """The file that holds ``key``, to be read only; ``ObjectMissingError`` if there is none."""
        path = self._path(key)
        if not path.is_file():
            raise ObjectMissingError(f"no object {key!r}")
        return path

    def stat(self, key: str) -> ObjectStat | None:
        """What is stored under ``key``, with its digest; none when nothing is."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                sha256 = self._recorded(key, found)
                if sha256 is None:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    self._record(key, found, sha256)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return ObjectStat(key, found.st_size, sha256)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Objects whose key begins with ``prefix``, in order of their keys."""
        folder = self._objects / prefix.rpartition("/")[0]
        if ".." in prefix.split("/") or prefix.startswith("/"):
            raise InvalidKeyError(f"no object key begins with {prefix!r}")
        keys = (
            (Path(parent) / name).relative_to(self._objects).as_posix()
            for parent, _, names in os.walk(folder)
            for name in names
        )
        for key in sorted(key for key in keys if key.startswith(prefix)):
            found = self.stat(key)
            if found is not None:
                yield found

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        with suppress(NotADirectoryError):
            self._path(key).unlink(missing_ok=True)
            (self._digests / key).unlink(missing_ok=True)

    def sign_upload(self, key: str, *, size: int, sha256: str, expires_in: int) -> SignedUpload:
        """Let the holder store exactly these bytes under ``key`` within ``expires_in`` seconds."""
        grant = SignedGrant("PUT", check_key(key), size, sha256, self._until(expires_in))
        return SignedUpload(self._url(grant), {})

    def sign_download(self, key: str, *, expires_in: int) -> str:
        """Let the holder read ``key`` within ``expires_in`` seconds."""
        grant = SignedGrant("GET", check_key(key), None, None, self._until(expires_in))
        return self._url(grant)

    def verify(
        self, method: str, key: str, params: Mapping[str, str], now: datetime
    ) -> SignedGrant:
        """What the query parameters of a signed URL allow; see ``verify_grant`` for its errors."""
        return verify_grant(self._sign_key, method, key, params, now)

    def _path(self, key: str) -> Path:
        return self._objects / check_key(key)

    def _url(self, grant: SignedGrant) -> str:
        return self._base_url + signed_url(grant, self._sign_key)

    def _until(self, expires_in: int) -> datetime:
        return self._clock() + timedelta(seconds=expires_in)

    def _refuse_nesting(self, key: str, target: Path) -> None:
        parents = list(target.parents)
        above = parents[: parents.index(self._objects)]
        if target.is_dir() or any(parent.is_file() for parent in above):
            raise InvalidKeyError(f"object key {key!r} is a folder of another key, or the reverse")

    def _publish(self, aside: Path, key: str, sha256: str) -> None:
        """Give the synced file ``aside`` its name, its record first."""
        target = self._path(key)
        self._refuse_nesting(key, target)
        _make_folder(target.parent, self._objects)
        self._record(key, aside.stat(), sha256)
        aside.replace(target)
        _sync(target.parent)

    def _record(self, key: str, found: os.stat_result, sha256: str) -> None:
        record = self._digests / key
        record.parent.mkdir(parents=True, exist_ok=True)
        aside = self._incoming / uuid4().hex
        text = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256}
        aside.write_text(json.dumps(text), encoding="ascii")
        aside.replace(record)

    def _recorded(self, key: str, found: os.stat_result) -> str | None:
        """The digest in the record of ``key``, if the record is of the file that was found."""
        try:
            record = json.loads((self._digests / key).read_text(encoding="ascii"))
            fits = (record["size"], record["mtime_ns"]) == (found.st_size, found.st_mtime_ns)
            return str(record["sha256"]) if fits else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _forget_abandoned(self) -> None:
        """Remove what writers that were killed have left, once nobody can still be writing it."""
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


class ObjectWriter:
    """One object on its way: ``write`` its bytes, then ``commit``; else nothing is stored."""

    def __init__(
        self,
        aside: Path,
        key: str,
        size: int | None,
        sha256: str | None,
        publish: Callable[[Path, str, str], None],
    ) -> None:
        self._aside, self._key, self._publish = aside, key, publish
        self._expected_size, self._expected_sha256 = size, sha256
        self._size, self._digest = 0, hashlib.sha256()
        self._file = aside.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, piece: bytes) -> None:
        """Add bytes; ``DigestMismatchError`` as soon as there are more than announced."""
        self._size += len(piece)
        if self._expected_size is not None and self._size > self._expected_size:
            raise DigestMismatchError(
                f"{self._key}: more than the {self._expected_size} bytes that were announced"
            )
        self._digest.update(piece)
        self._file.write(piece)

    def commit(self) -> ObjectStat:
        """Store what was written, durably, in one step."""
        sha256 = self._digest.hexdigest()
        if self._expected_size not in {None, self._size}:
            raise DigestMismatchError(
                f"{self._key}: {self._size} bytes came of {self._expected_size} announced"
            )
        if self._expected_sha256 not in {None, sha256}:
            raise DigestMismatchError(
                f"{self._key}: the bytes have SHA-256 {sha256}, not {self._expected_sha256}"
            )
        self._file.flush()
        # A time of our own: the kernel's is too coarse to tell two writers of one tick apart.
        os.utime(self._file.fileno(), ns=(time.time_ns(), time.time_ns()))
        os.fsync(self._file.fileno())
        self._file.close()
        self._publish(self._aside, self._key, sha256)
        return ObjectStat(self._key, self._size, sha256)

    def abort(self) -> None:
        """Drop what was written; nothing happens after ``commit``."""
        self._file.close()
        self._aside.unlink(missing_ok=True)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _make_folder(folder: Path, root: Path) -> None:
    """Make ``folder`` below ``root`` so that it survives a power cut."""
    if folder != root and not folder.is_dir():
        _make_folder(folder.parent, root)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
