"""Registered datasets on this host, each fetched once for an organisation."""

import asyncio
import os
import re
import shutil
import tarfile
from heapq import nlargest
from pathlib import Path

from st_shared.content_cache import CacheFullError, ContentCache
from st_shared.durable import sha256_of
from st_shared.protocol.content import ContentFile, content_digest
from st_shared.protocol.worker import DatasetDownload, Download
from st_worker.cached import locked
from st_worker.errors import FetchRefused, NoRoom, TransferError
from st_worker.folder import StateFolder
from st_worker.transfer import Transfer

MOST_TOLD = 1000
"""Datasets that a controller is told of."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class DatasetCache:
    """Folders of datasets; several attempts, also of several agents, may want one at once."""

    def __init__(self, folder: StateFolder, transfer: Transfer) -> None:
        self._folder, self._transfer, self._cache = folder, transfer, folder.content_cache()

    @property
    def content(self) -> ContentCache:
        """Where the datasets lie, and other content."""
        return self._cache

    def digests(self) -> list[str]:
        """Of the datasets that need not be fetched, at most ``MOST_TOLD`` of those got last."""
        with os.scandir(self._folder.datasets) as entries:
            found = [entry for entry in entries if _DIGEST.fullmatch(entry.name)]
        latest = nlargest(MOST_TOLD, found, key=_got_at)
        return sorted(entry.name for entry in latest)

    def has(self, digest: str) -> bool:
        """Whether it need not be fetched."""
        return self._path(digest).is_dir()

    async def fetch(self, dataset: DatasetDownload, user: str | None = None) -> Path:
        """The folder of ``dataset``, fetched and unpacked first if it is not here yet.

        It stays until ``user``, an attempt's id, releases it.

        Raises:
            NoRoom: this host has too little room for it.
            TransferError: an archive cannot be fetched intact, or holds what it must not.
        """
        final = self._path(dataset.place)
        with await locked(self._cache, dataset.place):
            if not final.is_dir():
                await self._fetch(dataset)
            await asyncio.to_thread(self._cache.use, dataset.place, user)
        return final

    async def _fetch(self, dataset: DatasetDownload) -> None:
        """Bring the content together; what was unpacked before an interruption stays so."""
        sizes = [archive.size for archive in dataset.archives]
        room = sum(sizes) + max(sizes, default=0)
        try:
            await asyncio.to_thread(self._cache.reserve, dataset.place, room)
        except CacheFullError as error:
            raise NoRoom(f"dataset {dataset.name}: {error}", room) from error
        staging = self._cache.staging(dataset.place)
        content, packed = staging / "content", staging / "packed"
        for folder in (content, packed):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            for archive in dataset.archives:
                await self._unpacked(archive, staging)
            await asyncio.to_thread(_verify, content, dataset)
        except FetchRefused:  # what came so far is whole
            raise
        except TransferError:
            await asyncio.to_thread(shutil.rmtree, staging)
            raise
        await asyncio.to_thread(self._cache.admit, "datasets", dataset.place, content)
        await asyncio.to_thread(shutil.rmtree, staging)

    async def _unpacked(self, archive: Download, staging: Path) -> None:
        done = staging / f"{archive.sha256}.done"
        if done.exists():
            return
        packed = staging / "packed" / archive.sha256
        await self._transfer.fetch(archive, packed)
        await asyncio.to_thread(unpack, packed, staging / "content")
        packed.unlink()
        done.touch()

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise TransferError(f"{digest!r} is not the digest of a dataset")
        return self._folder.datasets / digest


def _got_at(entry: "os.DirEntry[str]") -> int:
    """Nanoseconds; 0 once another agent has evicted it."""
    try:
        return entry.stat().st_ctime_ns
    except FileNotFoundError:
        return 0


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar archive of plain files and folders below ``target``.

    Raises:
        TransferError: it is no tar archive, leads outside ``target``, or holds links or devices.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                # A sparse file could claim more bytes than any disk has.
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise TransferError(
                        f"a dataset holds {member.name!r}, which is neither a plain file nor a "
                        "folder"
                    )
                tar.extract(member, target, filter="data")
    except (tarfile.TarError, ValueError) as error:  # a name with NUL is a ValueError
        raise TransferError(f"an archive of a dataset cannot be unpacked: {error}") from error


def _verify(content: Path, dataset: DatasetDownload) -> None:
    """Refuse what is not the content that the digest names.

    The controller never sees inside of archives, and the cache gives this folder to every job of
    the organisation whose dataset has the same digest, whoever registered it.
    """
    files = [
        ContentFile(path.relative_to(content).as_posix(), path.stat().st_size, sha256_of(path))
        for path in content.rglob("*")
        if path.is_file()
    ]
    found = content_digest(files)
    if found != dataset.digest:
        raise TransferError(
            f"dataset {dataset.name} holds other content than it was registered with (digest "
            f"{found[:12]}, not {dataset.digest[:12]}): push it again"
        )
