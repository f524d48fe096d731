"""Files and locks of the host's content cache, for code that must not block."""

import asyncio
import os
import shutil
from pathlib import Path

import structlog

from st_shared.content_cache import CacheFullError, ContentCache, ContentLock
from st_shared.durable import sha256_of
from st_shared.protocol.worker import Download
from st_worker.backoff import delays
from st_worker.transfer import Transfer

log = structlog.get_logger(__name__)

_FIRST_LOOK, _LATEST_LOOK = 0.01, 0.5
"""Seconds between two looks whether a lock is free."""


async def locked(cache: ContentCache, digest: str) -> ContentLock:
    """The lock of a content, once nobody else has it."""
    pauses = delays(_FIRST_LOOK, _LATEST_LOOK)
    # Another process may have it, so there is nothing to be woken by.
    while (lock := cache.try_lock(digest)) is None:  # noqa: ASYNC110
        await asyncio.sleep(next(pauses))
    return lock


async def fetch_file(
    cache: ContentCache, transfer: Transfer, wanted: Download, target: Path
) -> None:
    """Bring a file to ``target`` by way of the cache, or past it where there is no room.

    ``target`` is a name of the cached file where both lie on one file system, so it stays when
    that is evicted; it must only be read.

    Raises:
        TransferError: it cannot be fetched intact.
    """
    with await locked(cache, wanted.sha256):
        if not await asyncio.to_thread(_is_whole, cache, wanted):
            try:
                await asyncio.to_thread(cache.reserve, wanted.sha256, wanted.size)
            except CacheFullError as error:
                log.warning("cache.full", path=wanted.path, why=str(error))
                await transfer.fetch(wanted, target)
                return
            staging = cache.staging(wanted.sha256)
            await transfer.fetch(wanted, staging)
            await asyncio.to_thread(cache.admit, "files", wanted.sha256, staging)
        await asyncio.to_thread(cache.use, wanted.sha256, None)
        await asyncio.to_thread(_give, cache.path("files", wanted.sha256), target)


def _is_whole(cache: ContentCache, wanted: Download) -> bool:
    """Whether the content is there and what it was; one that a disk has damaged is dropped."""
    if not cache.has("files", wanted.sha256):
        return False
    if sha256_of(cache.path("files", wanted.sha256)) == wanted.sha256:
        return True
    log.warning("cache.damaged", path=wanted.path)
    cache.drop("files", wanted.sha256)
    return False


def _give(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
