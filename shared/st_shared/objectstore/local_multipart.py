"""Uploads in parts to a folder: each part is written at its place in the file that they make.

``uploads/ID/`` holds ``upload.json`` (what it shall become), ``body`` and one record a part, which
is written once the bytes of the part are on disk. So nothing is copied when the object is made; it
is read once, to compare the SHA-256 of the whole.

The file that is read is the one that becomes the object, so no byte may change in it from then on:
a piece is written under a shared lock, and only where its part has no record. All parts have one
before the object is made, and whoever makes it takes the lock once for itself alone.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from st_shared.clock import Clock
from st_shared.durable import write_whole
from st_shared.objectstore.key import check_key
from st_shared.objectstore.multipart import (
    OpenUpload,
    PartDigest,
    StoredPart,
    UploadMissingError,
    must_be_proven,
    part_sizes,
)
from st_shared.objectstore.signature import BadSignatureError, SignedGrant
from st_shared.objectstore.store import DigestMismatchError, ObjectStat, SignedUpload

Publish = Callable[[Path, str, str], None]
"""Gives a synced file its key; the last argument is its SHA-256."""

Sign = Callable[[SignedGrant], str]
"""The URL that proves a grant."""

REMAINS_AGE = timedelta(days=1)
"""Since the last change of a folder without ``upload.json``, until it is dropped."""
_ID = re.compile(r"[0-9a-f]{32}")
_RECORD = re.compile(r"(\d{1,5})\.json")


class LocalUploads:
    """``MultipartUploads`` in a folder."""

    def __init__(self, root: Path, publish: Publish, sign: Sign, clock: Clock) -> None:
        self._root, self._publish, self._sign, self._clock = root, publish, sign, clock
        root.mkdir(parents=True, exist_ok=True)

    def begin(self, key: str, *, size: int, sha256: str) -> str:
        """Begin an upload that shall become the object ``key``; its id."""
        upload_id = uuid4().hex
        folder = self._root / upload_id
        folder.mkdir()
        (folder / "body").touch()
        told = {"key": check_key(key), "size": size, "sha256": sha256}
        # Last, since whatever has no such file is no upload.
        write_whole(folder / "upload.json", json.dumps(told))
        return upload_id

    def sign_part(
        self, key: str, upload_id: str, part: PartDigest, *, expires_in: int
    ) -> SignedUpload:
        """Let the holder store exactly this part within ``expires_in`` seconds, again and again."""
        until = self._clock() + timedelta(seconds=expires_in)
        grant = SignedGrant(
            "PUT", check_key(key), part.size, part.sha256, until, upload_id, part.number
        )
        return SignedUpload(self._sign(grant), {})

    def open_part(self, grant: SignedGrant) -> "PartWriter":
        """Start writing the part that ``grant`` is for.

        Raises:
            UploadMissingError: there is no such upload.
            BadSignatureError: the whole has no such part.
        """
        folder, size, _ = self._known(grant.key, grant.upload or "")
        sizes, number = part_sizes(size), grant.part or 0
        if not 1 <= number <= len(sizes) or grant.size != sizes[number - 1]:
            raise BadSignatureError(f"the upload of {grant.key} has no such part")
        return PartWriter(folder, grant, (number - 1) * sizes[0])

    def parts(self, key: str, upload_id: str) -> list[StoredPart]:
        """What has arrived, by number; ``UploadMissingError`` when there is no such upload."""
        folder, *_ = self._known(key, upload_id)
        found = []
        for path in folder.iterdir():
            if match := _RECORD.fullmatch(path.name):
                record = json.loads(path.read_bytes())
                found.append(StoredPart(int(match[1]), record["size"], record["sha256"], None))
        return sorted(found, key=lambda part: part.number)

    def complete(
        self, key: str, upload_id: str, parts: Sequence[PartDigest], *, sha256: str
    ) -> ObjectStat:
        """Make the object of all its parts, in one step; see ``MultipartUploads`` for errors."""
        folder, size, _ = self._known(key, upload_id)
        must_be_proven(key, self.parts(key, upload_id), parts)
        try:
            with (folder / "body").open("r+b") as body:
                with _locked(body.fileno(), fcntl.LOCK_EX):
                    pass  # whoever was still writing is through, and finds the records now
                found = hashlib.file_digest(body, "sha256").hexdigest()
                if (body.tell(), found) != (size, sha256):
                    self.abort(key, upload_id)  # no part alone is to blame
                    raise DigestMismatchError(f"{key}: the parts together have SHA-256 {found}")
                now = int(datetime.now(UTC).timestamp() * 1e9)
                os.utime(body.fileno(), ns=(now, now))
                os.fsync(body.fileno())
            self._publish(folder / "body", key, found)
        except FileNotFoundError:
            # Somebody else has completed or aborted it meanwhile.
            raise UploadMissingError(f"there is no upload {upload_id}") from None
        self.abort(key, upload_id)
        return ObjectStat(key, size, found)

    def abort(self, key: str, upload_id: str) -> None:
        """Drop the upload and its parts; nothing happens when there is none."""
        with suppress(UploadMissingError):
            folder, *_ = self._known(key, upload_id)
            (folder / "upload.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)  # one who writes a part may be faster

    def unfinished(self) -> Iterator[OpenUpload]:
        """Every upload that was begun and is neither completed nor aborted.

        What is left of others, because somebody died over it, is dropped on the way.
        """
        for folder in sorted(self._root.iterdir()):
            try:
                told = json.loads((folder / "upload.json").read_bytes())
                begun = datetime.fromtimestamp((folder / "upload.json").stat().st_mtime, UTC)
            except FileNotFoundError:
                self._drop_old(folder)
                continue
            except NotADirectoryError:
                continue
            yield OpenUpload(told["key"], folder.name, begun)

    def _drop_old(self, folder: Path) -> None:
        """Remove a folder that is no upload, unless somebody may be at it just now."""
        with suppress(FileNotFoundError):
            changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            if self._clock() - changed > REMAINS_AGE:
                shutil.rmtree(folder, ignore_errors=True)  # else the next look does it

    def _known(self, key: str, upload_id: str) -> tuple[Path, int, str]:
        """Folder, size and digest of an upload of ``key``."""
        check_key(key)
        missing = UploadMissingError(f"there is no upload {upload_id}")
        if not _ID.fullmatch(upload_id):
            raise missing
        folder = self._root / upload_id
        try:
            told = json.loads((folder / "upload.json").read_bytes())
        except FileNotFoundError:
            raise missing from None
        if told["key"] != key:
            raise missing
        return folder, int(told["size"]), str(told["sha256"])


class PartWriter:
    """One part on its way: ``write`` its bytes, then ``commit``; else it counts as missing."""

    def __init__(self, folder: Path, grant: SignedGrant, offset: int) -> None:
        self._record = folder / f"{grant.part}.json"
        self._name = f"{grant.key}: part {grant.part}"
        self._wanted_size, self._wanted = grant.size or 0, grant.sha256
        self._size, self._digest, self._offset = 0, hashlib.sha256(), offset
        self._is_there = self._record.exists()
        self._missing = UploadMissingError(f"there is no upload {grant.upload}")
        try:
            self._file = (folder / "body").open("r+b", buffering=0)
        except FileNotFoundError:
            raise self._missing from None

    def write(self, piece: bytes) -> None:
        """Add bytes.

        Raises:
            DigestMismatchError: there are more than announced.
            UploadMissingError: the upload was completed or aborted meanwhile.
        """
        self._size += len(piece)
        if self._size > self._wanted_size:
            raise DigestMismatchError(f"{self._name} has more than {self._wanted_size} bytes")
        self._digest.update(piece)
        with _locked(self._file.fileno(), fcntl.LOCK_SH):
            # What is proven is never written over. The order counts: an upload that ends loses
            # ``upload.json`` before its records.
            self._is_there = self._record.exists()
            if not self._record.with_name("upload.json").exists():
                raise self._missing
            if not self._is_there:
                self._write_here(piece)

    def _write_here(self, piece: bytes) -> None:
        """Write all of it at once, with nothing buffered that would follow after the lock."""
        left = memoryview(piece)
        while left:
            written = os.pwrite(self._file.fileno(), left, self._offset)
            self._offset, left = self._offset + written, left[written:]

    def commit(self) -> ObjectStat:
        """Let the part count, once it is on disk."""
        found = self._digest.hexdigest()
        if (self._size, found) != (self._wanted_size, self._wanted):
            raise DigestMismatchError(
                f"{self._name}: {self._size} bytes came with SHA-256 {found}, "
                f"not {self._wanted_size} with {self._wanted}"
            )
        if not self._is_there:
            os.fsync(self._file.fileno())
            aside = self._record.with_name(f".{uuid4().hex}")  # two may send the same part
            try:
                write_whole(aside, json.dumps({"size": self._size, "sha256": found}))
                aside.replace(self._record)
            except FileNotFoundError:
                raise self._missing from None
        self._file.close()
        return ObjectStat(self._name, self._size, found)

    def abort(self) -> None:
        """Drop what was written; nothing happens after ``commit``."""
        self._file.close()


@contextmanager
def _locked(descriptor: int, kind: int) -> Iterator[None]:
    """A lock of the kernel, which other processes and other descriptors of this one respect."""
    fcntl.flock(descriptor, kind)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
