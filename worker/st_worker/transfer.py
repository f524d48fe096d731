"""Files by signed URLs: fetched and verified, or sent as they are. No credential goes along."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import httpx
import structlog

from st_shared.protocol.worker import Download
from st_worker.answers import LATER, problem_of, said
from st_worker.client import new_client
from st_worker.errors import (
    FetchRefused,
    RequestRefused,
    TemporaryTrouble,
    TransferError,
    WorkerError,
)
from st_worker.settings import AgentSettings

log = structlog.get_logger(__name__)

_PIECE_BYTES = 1 << 20


class Damaged(WorkerError):
    """The bytes that came are not those that were announced."""


class Transfer:
    """Moves files between this disk and the object store."""

    def __init__(
        self,
        url: str,
        settings: AgentSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._http = new_client(url, settings, transport)

    async def close(self) -> None:
        """Let go of the sockets."""
        await self._http.aclose()

    async def fetch(self, wanted: Download, target: Path) -> None:
        """Fetch a file to ``target``; it appears there only when size and checksum are right.

        A store that does not answer is tried again without end; what came before is not fetched
        again, also not by the next process.

        Raises:
            FetchRefused: it was refused, the last of as many times as the settings allow.
            TransferError: it came damaged as often.
        """
        failures, pauses = 0, self._settings.pauses()
        while True:
            try:
                return await self._fetch_once(wanted, target)
            except TemporaryTrouble as trouble:
                log.warning("fetch.again", path=wanted.path, why=str(trouble))
            except WorkerError as error:
                failures += 1
                log.warning("fetch.failed", path=wanted.path, failures=failures, why=str(error))
                if failures >= self._settings.transfer_tries:
                    kind = FetchRefused if isinstance(error, RequestRefused) else TransferError
                    raise kind(
                        f"{wanted.path} could not be fetched in {failures} tries: {error}"
                    ) from error
            await asyncio.sleep(next(pauses))

    async def send(self, source: BinaryIO, size: int, url: str, headers: Mapping[str, str]) -> None:
        """PUT ``size`` bytes of ``source`` to a signed URL.

        Raises:
            TemporaryTrouble: no answer, or one that a later try may better.
            WorkerError: the store refused it.
        """
        await self._put(_pieces(source, size), size, url, headers)

    async def _put(
        self, body: AsyncIterator[bytes], size: int, url: str, headers: Mapping[str, str]
    ) -> None:
        # Stores of the S3 kind refuse chunked bodies, hence the length.
        length = {"Content-Length": str(size)}
        try:
            reply = await self._http.put(url, content=body, headers={**headers, **length})
        except httpx.RequestError as error:
            raise TemporaryTrouble(f"the store does not answer: {said(error)}") from error
        if not reply.is_success:
            raise store_error(reply)

    async def send_part(
        self, path: Path, start: int, size: int, url: str, headers: Mapping[str, str]
    ) -> str:
        """PUT ``size`` bytes of a file, from ``start`` on; their MD5. Errors as in ``send``."""
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("rb") as source:
            source.seek(start)
            await self._put(_pieces(source, size, digest.update), size, url, headers)
        return digest.hexdigest()

    async def _fetch_once(self, wanted: Download, target: Path) -> None:
        aside = target.with_name(f".{target.name}.partial")
        with aside.open("a+b") as file:
            digest = await asyncio.to_thread(_digested, file, wanted.size)
            have = file.tell()
            ranged = {"Range": f"bytes={have}-"} if have else {}
            try:
                if have < wanted.size or not have:
                    async with self._http.stream("GET", wanted.url, headers=ranged) as reply:
                        if not reply.is_success:
                            await reply.aread()
                            raise store_error(reply)
                        if reply.status_code != httpx.codes.PARTIAL_CONTENT:
                            file.truncate(0)
                            file.seek(0)
                            digest = hashlib.sha256()
                        await _receive(reply, file, wanted, digest)
                await asyncio.to_thread(_must_be_whole, file, wanted, digest)
            except httpx.RequestError as error:
                file.flush()
                raise TemporaryTrouble(f"the store does not answer: {said(error)}") from error
            except Damaged:
                aside.unlink()
                raise
        aside.replace(target)


def store_error(reply: httpx.Response) -> WorkerError:
    """The error that an answer of 300 or more means; it refuses this URL, not this worker."""
    problem = problem_of(reply)
    if reply.status_code >= 500 or reply.status_code in LATER:
        return TemporaryTrouble(f"{problem.detail} ({problem.status} {problem.code})")
    return RequestRefused(problem)


async def _receive(
    reply: httpx.Response, file: BinaryIO, wanted: Download, digest: "hashlib._Hash"
) -> None:
    """Append the body to ``file``; ``Damaged`` as soon as there is more than was announced."""
    size = file.tell()
    async for piece in reply.aiter_raw(_PIECE_BYTES):
        size += len(piece)
        if size > wanted.size:
            raise Damaged(f"more than the {wanted.size} bytes that were announced")
        digest.update(piece)
        await asyncio.to_thread(file.write, piece)


def _digested(file: BinaryIO, most: int) -> "hashlib._Hash":
    """Digest what is in ``file``, which ends behind it; more than ``most`` bytes are dropped."""
    if file.seek(0, os.SEEK_END) > most:
        file.truncate(0)
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    file.seek(0, os.SEEK_END)
    return digest


def _must_be_whole(file: BinaryIO, wanted: Download, digest: "hashlib._Hash") -> None:
    """Force ``file`` to disk; ``Damaged`` when it is not what was announced."""
    size = file.tell()
    if size != wanted.size:
        raise Damaged(f"{size} bytes came of {wanted.size} announced")
    if digest.hexdigest() != wanted.sha256:
        raise Damaged(f"the bytes have SHA-256 {digest.hexdigest()}, not {wanted.sha256}")
    file.flush()
    os.fsync(file.fileno())


async def _pieces(
    source: BinaryIO, size: int, note: Callable[[bytes], None] | None = None
) -> AsyncIterator[bytes]:
    """The next ``size`` bytes; ``note`` sees each piece, off the event loop."""

    def read() -> bytes:
        piece = source.read(min(_PIECE_BYTES, left))
        if note is not None:
            note(piece)
        return piece

    left = size
    while left and (piece := await asyncio.to_thread(read)):
        left -= len(piece)
        yield piece
    if left:
        raise FileNotFoundError(errno.ENOENT, "it became shorter while it was sent", source.name)
