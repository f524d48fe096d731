"""Registered datasets on this machine, each fetched once and known by the digest of its content."""

import asyncio
import os
import re
import shutil
import tarfile
import tempfile
import weakref
from heapq import nlargest
from pathlib import Path

from st_shared.durable import sha256_of
from st_shared.protocol.content import ContentFile, content_digest
from st_shared.protocol.worker import DatasetDownload
from st_worker.errors import TransferError
from st_worker.folder import StateFolder
from st_worker.transfer import Transfer

MOST_TOLD = 1000
"""Datasets that a controller is told of."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class DatasetCache:
    """Folders of datasets; several attempts may ask for the same one at once."""

    def __init__(self, folder: StateFolder, transfer: Transfer) -> None:
        self._folder, self._transfer = folder, transfer
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def digests(self) -> list[str]:
        """Of the datasets that need not be fetched, at most ``MOST_TOLD`` of those got last."""
        with os.scandir(self._folder.datasets) as entries:
            found = [entry for entry in entries if _DIGEST.fullmatch(entry.name)]
        latest = nlargest(MOST_TOLD, found, key=lambda entry: entry.stat().st_ctime_ns)
        return sorted(entry.name for entry in latest)

    def has(self, digest: str) -> bool:
        """Whether it need not be fetched."""
        return self._path(digest).is_dir()

    async def fetch(self, dataset: DatasetDownload) -> Path:
        """The folder of ``dataset``, fetched and unpacked first if it is not here yet.

        Raises:
            TransferError: an archive cannot be fetched intact, or holds what it must not.
        """
        final = self._path(dataset.digest)
        lock = self._locks.setdefault(dataset.digest, asyncio.Lock())
        async with lock:
            if not final.is_dir():
                await self._fetch_to(dataset, final)
        return final

    async def _fetch_to(self, dataset: DatasetDownload, final: Path) -> None:
        aside = Path(tempfile.mkdtemp(prefix=f"{dataset.digest[:12]}-", dir=self._folder.incoming))
        try:
            content = aside / "content"
            content.mkdir()
            for archive in dataset.archives:
                packed = aside / "archive.tar"
                await self._transfer.fetch(archive, packed)
                await asyncio.to_thread(unpack, packed, content)
                packed.unlink()
            await asyncio.to_thread(_verify, content, dataset)
            content.rename(final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # a leftover is removed at the next start

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise TransferError(f"{digest!r} is not the digest of a dataset")
        return self._folder.datasets / digest


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

    The controller never sees inside of archives, and the cache gives this folder to every job
    whose dataset has the same digest, whoever registered it.
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
