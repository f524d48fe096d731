"""A file to the store in parts: several at a time, each again until it is there, none twice."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from st_shared.objectstore.multipart import part_sizes
from st_shared.protocol.worker import (
    ArtifactTicket,
    Lease,
    PartFile,
    PartProof,
    PartsWanted,
    PartTicket,
    UploadedParts,
)
from st_worker.client import Controller
from st_worker.digests import FileDigests, md5_of_part, sha256_of_parts
from st_worker.errors import RequestRefused, StaleLease, TemporaryTrouble
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer

log = structlog.get_logger(__name__)

_PARTS_A_CALL = 8
"""While so many are sent, the next are digested and their tickets fetched."""


class PartSender:
    """Sends files under one lease; whatever was stored before a crash is found there."""

    def __init__(
        self, controller: Controller, transfer: Transfer, lease: Lease, settings: AgentSettings
    ) -> None:
        self._controller, self._transfer = controller, transfer
        self._lease, self._settings = lease, settings

    async def send(self, path: Path, ticket: ArtifactTicket, digests: FileDigests) -> UploadedParts:
        """Bring every part to the store; what each must be, for the controller to compare.

        Raises:
            RequestRefused: a part was refused as often as the settings allow, fresh URLs included.
            TemporaryTrouble: the store did not answer as often.
        """
        file = _File(path, ticket, digests.size)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = await self._begin_all(file, group)
        except ExceptionGroup as errors:
            stale = [error for error in errors.exceptions if isinstance(error, StaleLease)]
            raise (stale or errors.exceptions)[0] from None
        proofs = [
            PartProof(sha256=file.sha256s[number - 1], md5=task.result())
            for number, task in enumerate(tasks, 1)
        ]
        return UploadedParts(artifact_id=ticket.artifact_id, parts=proofs)

    async def _begin_all(
        self, file: "_File", group: asyncio.TaskGroup
    ) -> list["asyncio.Task[str | None]"]:
        """A task a part, in order; few are begun before there is room for them."""
        room = asyncio.Semaphore(self._settings.parts_at_once)
        tasks: list[asyncio.Task[str | None]] = []
        for first in range(1, file.count + 1, _PARTS_A_CALL):
            numbers = range(first, min(first + _PARTS_A_CALL, file.count + 1))
            file.sha256s += await asyncio.to_thread(sha256_of_parts, file.path, file.sizes, numbers)
            tickets = await self._tickets(file, numbers)
            if len(tasks) >= _PARTS_A_CALL:
                await asyncio.wait(tasks[-_PARTS_A_CALL:])
            tasks += [group.create_task(self._part(file, each, room)) for each in tickets]
        return tasks

    async def _part(self, file: "_File", ticket: PartTicket, room: asyncio.Semaphore) -> str | None:
        """Let one part be stored; its MD5, where that had to be known."""
        start, size = file.place(ticket.number)
        failures, pauses = 0, self._settings.pauses()
        async with room:
            while True:
                if ticket.is_stored:
                    return None
                if ticket.md5 is not None:
                    md5 = await asyncio.to_thread(md5_of_part, file.path, start, size)
                    if md5 == ticket.md5:
                        return md5
                try:
                    return await self._transfer.send_part(
                        file.path, start, size, ticket.url, ticket.headers
                    )
                except (TemporaryTrouble, RequestRefused) as error:
                    failures += 1
                    log.warning("part.again", part=ticket.number, why=str(error))
                    if failures >= self._settings.transfer_tries:
                        raise
                await asyncio.sleep(next(pauses))
                # Its answer may have been lost, or its URL have run out.
                (ticket,) = await self._tickets(file, [ticket.number])

    async def _tickets(self, file: "_File", numbers: Sequence[int]) -> list[PartTicket]:
        wanted = PartsWanted(
            epoch=self._lease.epoch,
            artifact_id=file.artifact_id,
            parts=[PartFile(number=each, sha256=file.sha256s[each - 1]) for each in numbers],
        )
        answer = await self._controller.artifact_parts(self._lease.attempt_id, wanted)
        return answer.tickets


class _File:
    """What is sent."""

    def __init__(self, path: Path, ticket: ArtifactTicket, size: int) -> None:
        self.path, self.artifact_id = path, ticket.artifact_id
        self.sizes = part_sizes(size, ticket.part_bytes)
        self.count = len(self.sizes)
        self.sha256s: list[str] = []
        """Of the parts that were begun, in order."""

    def place(self, number: int) -> tuple[int, int]:
        """Where a part begins, and its size; bytes."""
        return (number - 1) * self.sizes[0], self.sizes[number - 1]
