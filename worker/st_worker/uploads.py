"""Samples, checkpoints and results to the store, in the order in which the journal names them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from st_shared.durable import write_whole
from st_shared.protocol.journal import (
    CheckpointEvent,
    CheckpointManifest,
    JournalEvent,
    OutputEvent,
    SampleEvent,
)
from st_shared.protocol.worker import (
    ArtifactFile,
    ArtifactKind,
    ArtifactOffer,
    ArtifactsStored,
    ArtifactTicket,
    Lease,
)
from st_worker.client import Controller
from st_worker.digests import FileDigests, digests_of
from st_worker.errors import FULL_DISK, RequestRefused, StaleLease, TemporaryTrouble
from st_worker.folder import AttemptFolder
from st_worker.journal import Cursor, Journal
from st_worker.parts import PartSender
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer

log = structlog.get_logger(__name__)

_FILES_A_CALL = 500
Acknowledged = Callable[[int], Awaitable[None]]
"""Returns once the controller holds the journal up to this line."""

_ALREADY_STORED = "artifact_exists"


class UploadProgress(BaseModel):
    """What survives a restart: how far the journal is worked off, and what was refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Cursor
    refused: list[str] = []
    """A sentence for each file that the store would not take."""

    @classmethod
    def load(cls, path: Path, *, start: int) -> Self:
        """The progress in ``path``; a damaged one counts as none, since stored files stay so."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return cls(place=Cursor(seq=start))


class Uploads:
    """Works the journal off beside the training; what is stored is never sent again."""

    def __init__(
        self,
        controller: Controller,
        transfer: Transfer,
        lease: Lease,
        folder: AttemptFolder,
        journal: Journal,
        settings: AgentSettings,
        *,
        start: int,
        acknowledged: Acknowledged,
    ) -> None:
        self._controller, self._transfer, self._lease = controller, transfer, lease
        self._folder, self._journal, self._settings = folder, journal, settings
        self._acknowledged = acknowledged
        self._progress = UploadProgress.load(folder.uploaded, start=start)
        self._is_sealed = False
        self._woken = asyncio.Event()
        self._parts = PartSender(controller, transfer, lease, settings)
        self._digests: dict[str, FileDigests] = {}
        """Of files that are being stored, so that a further try reads them not again."""

    @property
    def refused(self) -> Sequence[str]:
        """A sentence for each file that could not be stored."""
        return self._progress.refused

    @property
    def offset(self) -> int:
        """The byte of the journal up to which it is worked off."""
        return self._progress.place.offset

    def seal(self) -> None:
        """Nothing more will be appended: end once all is stored."""
        self._is_sealed = True
        self._woken.set()

    async def run(self) -> None:
        """Upload until the journal is sealed and worked off; ``StaleLease`` when the lease ends."""
        while True:
            self._woken.clear()
            was_sealed = self._is_sealed
            lines = self._journal.read(self._progress.place)
            for line in lines:
                if isinstance(line.event, SampleEvent | CheckpointEvent | OutputEvent):
                    await self._store_event(line.event)
                    self._move(line.after)
            if lines:
                self._move(lines[-1].after)
            elif was_sealed:
                return
            else:
                await self._pause()

    async def _pause(self) -> None:
        """Wait until it is time to look at the journal again, or until something was said."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), self._settings.poll_seconds)

    async def _store_event(self, event: SampleEvent | CheckpointEvent | OutputEvent) -> None:
        try:
            for paths in self._groups(event):
                if isinstance(event, CheckpointEvent) and paths == [event.manifest]:
                    # From here on the job may go on elsewhere: what was measured before this
                    # step must not die with this host.
                    await self._acknowledged(event.seq)
                await self._store_patiently(event, paths)
        except FileNotFoundError as error:
            # The trainer keeps its newest checkpoints only and may be faster than the wire.
            log.warning("upload.vanished", path=error.filename, seq=event.seq)
        except StaleLease:
            raise
        except (RequestRefused, ValidationError) as error:
            log.warning("upload.given_up", seq=event.seq, why=str(error))
            sentence = f"{_named(event)}: {error}"
            refused = [*self._progress.refused, sentence]
            self._progress = UploadProgress(place=self._progress.place, refused=refused)

    def _groups(self, event: SampleEvent | CheckpointEvent | OutputEvent) -> Iterator[list[str]]:
        """Paths below the run folder, each list for a call of its own, a manifest last."""
        if not isinstance(event, CheckpointEvent):
            yield [event.path]
            return
        raw = (self._folder.run / event.manifest).read_bytes()
        folder = event.manifest.rpartition("/")[0]
        files = CheckpointManifest.model_validate_json(raw).files
        paths = [f"{folder}/{file.path}" if folder else file.path for file in files]
        for first in range(0, len(paths), _FILES_A_CALL):
            yield paths[first : first + _FILES_A_CALL]
        yield [event.manifest]

    async def _store_patiently(self, event: JournalEvent, paths: list[str]) -> None:
        """Store files, without end while a later try may help, else a few times."""
        refusals, pauses = 0, self._settings.pauses()
        while True:
            try:
                return await self._store(event, paths)
            except StaleLease:
                raise
            except TemporaryTrouble as trouble:
                log.warning("upload.again", paths=len(paths), why=str(trouble))
            except RequestRefused as error:
                if error.problem.code == _ALREADY_STORED:
                    log.warning("upload.exists", why=str(error))
                    return None
                refusals += 1  # a ticket that ran out is refused too, and a fresh one may serve
                log.warning("upload.refused", refusals=refusals, why=str(error))
                if refusals >= self._settings.transfer_tries:
                    raise
            await asyncio.sleep(next(pauses))

    async def _store(self, event: JournalEvent, paths: list[str]) -> None:
        files = [await self._described(event, path) for path in paths]
        offer = ArtifactOffer(epoch=self._lease.epoch, files=files)
        answer = await self._controller.offer_artifacts(self._lease.attempt_id, offer)
        uploads = []
        for file, ticket in zip(files, answer.tickets, strict=True):
            if ticket.url is not None:
                await self._send(file, ticket, ticket.url)
            elif ticket.part_bytes is not None:
                source, digests = self._folder.run / file.path, self._digests[file.path]
                uploads.append(await self._parts.send(source, ticket, digests))
        ids = [ticket.artifact_id for ticket in answer.tickets]
        stored = ArtifactsStored(epoch=self._lease.epoch, artifact_ids=ids, uploads=uploads)
        await self._controller.complete_artifacts(self._lease.attempt_id, stored)
        self._digests.clear()
        log.info("upload.stored", files=len(files), bytes=sum(file.size for file in files))

    async def _send(self, file: ArtifactFile, ticket: ArtifactTicket, url: str) -> None:
        with (self._folder.run / file.path).open("rb") as source:
            await self._transfer.send(source, file.size, url, ticket.headers)

    async def _described(self, event: JournalEvent, path: str) -> ArtifactFile:
        known, source = self._digests.get(path), self._folder.run / path
        if known is None or not known.fits(source):
            known = self._digests[path] = await digests_of(source)
        kind, step = _kind(event)
        return ArtifactFile(
            path=path,
            kind=kind,
            size=known.size,
            sha256=known.sha256,
            possession=known.possession,
            step=step,
        )

    def _move(self, place: Cursor) -> None:
        if place != self._progress.place:
            self._progress = UploadProgress(place=place, refused=self._progress.refused)
            try:
                write_whole(self._folder.uploaded, self._progress.model_dump_json())
            except OSError as error:
                if error.errno not in FULL_DISK:
                    raise
                # An agent that dies now offers again what is stored, which changes nothing.
                log.warning("upload.place_not_kept", why=str(error))


def _kind(event: JournalEvent) -> tuple[ArtifactKind, int | None]:
    if isinstance(event, SampleEvent):
        return "sample", event.step
    if isinstance(event, CheckpointEvent):
        return "checkpoint", event.step
    return "output", None


def _named(event: SampleEvent | CheckpointEvent | OutputEvent) -> str:
    return event.manifest if isinstance(event, CheckpointEvent) else event.path
