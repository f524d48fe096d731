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
from st_worker.digests import FileDigests, md5_of_part
from st_worker.errors import RequestRefused, StaleLease, TemporaryTrouble
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer

log = structlog.get_logger(__name__)

_PARTS_A_CALL = 64


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
        """
        file = _File(path, ticket.artifact_id, digests)
        proofs: list[PartProof] = []
        for first in range(0, len(digests.parts), _PARTS_A_CALL):
            numbers = range(first + 1, min(first + _PARTS_A_CALL, len(digests.parts)) + 1)
            proofs += await self._send_some(file, numbers)
        return UploadedParts(artifact_id=ticket.artifact_id, parts=proofs)

    async def _send_some(self, file: "_File", numbers: Sequence[int]) -> list[PartProof]:
        tickets = await self._tickets(file, numbers)
        room = asyncio.Semaphore(self._settings.parts_at_once)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._part(file, each, room)) for each in tickets]
        except ExceptionGroup as errors:
            stale = [error for error in errors.exceptions if isinstance(error, StaleLease)]
            raise (stale or errors.exceptions)[0] from None
        return [
            PartProof(sha256=file.digests.parts[number - 1], md5=task.result())
            for number, task in zip(numbers, tasks, strict=True)
        ]

    async def _part(self, file: "_File", ticket: PartTicket, room: asyncio.Semaphore) -> str | None:
        """Let one part be stored; its MD5, where that had to be known."""
        start, size = file.place(ticket.number)
        refusals, pauses = 0, self._settings.pauses()
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
                except TemporaryTrouble as trouble:
                    log.warning("part.again", part=ticket.number, why=str(trouble))
                except RequestRefused as error:
                    refusals += 1
                    log.warning("part.refused", part=ticket.number, why=str(error))
                    if refusals >= self._settings.transfer_tries:
                        raise
                await asyncio.sleep(next(pauses))
                # Its answer may have been lost, or its URL have run out.
                (ticket,) = await self._tickets(file, [ticket.number])

    async def _tickets(self, file: "_File", numbers: Sequence[int]) -> list[PartTicket]:
        wanted = PartsWanted(
            epoch=self._lease.epoch,
            artifact_id=file.artifact_id,
            parts=[PartFile(number=each, sha256=file.digests.parts[each - 1]) for each in numbers],
        )
        answer = await self._controller.artifact_parts(self._lease.attempt_id, wanted)
        return answer.tickets


class _File:
    """What is sent."""

    def __init__(self, path: Path, artifact_id: str, digests: FileDigests) -> None:
        self.path, self.artifact_id, self.digests = path, artifact_id, digests
        self._sizes = part_sizes(digests.size)

    def place(self, number: int) -> tuple[int, int]:
        """Where a part begins, and its size; bytes."""
        return (number - 1) * self._sizes[0], self._sizes[number - 1]
