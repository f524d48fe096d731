"""Samples, checkpoints and results to the store, in the order in which the journal names them."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from st_shared.clock import Clock, utc_now
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
from st_worker.backoff import delays
from st_worker.client import Controller
from st_worker.digests import FileDigests, digests_of, proven
from st_worker.errors import FULL_DISK, RequestRefused, StaleLease, TemporaryTrouble, UploadGivenUp
from st_worker.folder import AttemptFolder
from st_worker.journal import Cursor, Journal
from st_worker.parts import PartSender
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer

log = structlog.get_logger(__name__)

_FILES_A_CALL = 500
Acknowledged = Callable[[int], Awaitable[None]]
"""Returns once the controller holds the journal up to this line."""

_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
"""What an ``OSError`` says of a file that will be no more readable later."""

_ALREADY_STORED = "artifact_exists"


StoredEvent = SampleEvent | CheckpointEvent | OutputEvent
"""An event that names files."""


class Owed(BaseModel):
    """An event whose files could not be stored so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Annotated[StoredEvent, Field(discriminator="kind")]
    why: str
    """A sentence."""
    is_hopeless: bool = False
    """No later try will help: this host itself cannot read the file."""


class UploadProgress(BaseModel):
    """What survives a restart: how far the journal is worked off, and what was refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Cursor
    owed: list[Owed] = []
    """What the store would not take so far."""
    sealed_at: datetime | None = None
    """When the program had ended; the time that uploads are given counts from here."""

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
        clock: Clock = utc_now,
        acknowledged: Acknowledged,
    ) -> None:
        self._clock, self._keeps_trying = clock, False
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
        return [each.why for each in self._progress.owed]

    @property
    def offset(self) -> int:
        """The byte of the journal up to which it is worked off."""
        return self._progress.place.offset

    def seal(self, *, keep_trying: bool = False) -> None:
        """Nothing more will be appended: end once all is stored.

        ``keep_trying``: what the store refuses is tried until the time for it is over.
        """
        self._is_sealed, self._keeps_trying = True, keep_trying
        if self._progress.sealed_at is None:
            self._change(sealed_at=self._clock())
        self._woken.set()

    async def run(self) -> None:
        """Upload until the journal is sealed and worked off; ``StaleLease`` when the lease ends."""
        while True:
            self._woken.clear()
            was_sealed = self._is_sealed
            lines = self._journal.read(self._progress.place)
            for line in lines:
                if isinstance(line.event, StoredEvent):
                    await self._store_event(line.event)
                    self._move(line.after)
            if lines:
                self._move(lines[-1].after)
            elif was_sealed:
                return await self._settle_owed()
            else:
                await self._pause()

    async def _settle_owed(self) -> None:
        """Try what was refused again, with growing pauses, until its time is over."""
        pauses = delays(self._settings.first_backoff_seconds, self._settings.owed_backoff_seconds)
        while self._keeps_trying and (waiting := self._waiting()) and not self._is_late:
            await asyncio.sleep(next(pauses))
            for each in waiting:
                await self._store_event(each.event)
                left = list(self._progress.owed)
                left.remove(each)  # what failed again stands behind it
                self._change(owed=left)

    def _waiting(self) -> list[Owed]:
        return [each for each in self._progress.owed if not each.is_hopeless]

    @property
    def _is_late(self) -> bool:
        sealed_at = self._progress.sealed_at
        if sealed_at is None:
            return False
        settings, patience = self._settings, self._settings.upload_patience_seconds
        if self._is_sealed and not self._keeps_trying:  # the job's next try waits for this one
            patience = min(patience, settings.failed_upload_patience_seconds)
        return (self._clock() - sealed_at).total_seconds() >= patience

    async def _pause(self) -> None:
        """Wait until it is time to look at the journal again, or until something was said."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), self._settings.poll_seconds)

    async def _store_event(self, event: StoredEvent) -> None:
        try:
            for paths in self._groups(event):
                if isinstance(event, CheckpointEvent) and paths == [event.manifest]:
                    # From here on the job may go on elsewhere: what was measured before this
                    # step must not die with this host.
                    await self._acknowledged(event.seq)
                await self._store_patiently(event, paths)
        except FileNotFoundError as error:
            log.warning("upload.vanished", path=error.filename, seq=event.seq)
            # The trainer keeps its newest checkpoints only and may be faster than the wire.
            if isinstance(event, OutputEvent):  # nobody makes that again
                there = (self._folder.run / event.path).exists()  # it became shorter meanwhile
                self._owe(event, error, is_hopeless=not there)
        except StaleLease:
            raise
        except (RequestRefused, UploadGivenUp, ValidationError) as error:
            self._owe(event, error)
        except OSError as error:
            # What a job leaves need not be readable; that costs the file, not what has ended.
            self._owe(event, error, is_hopeless=error.errno in _UNREADABLE)

    def _owe(self, event: StoredEvent, error: Exception, *, is_hopeless: bool = False) -> None:
        log.warning("upload.refused", seq=event.seq, why=str(error))
        owed = Owed(event=event, why=f"{_named(event)}: {error}", is_hopeless=is_hopeless)
        self._change(owed=[*self._progress.owed, owed])

    def _groups(self, event: StoredEvent) -> Iterator[list[str]]:
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
        """Store files: while a later try may help until it is late, else a few times."""
        refusals, pauses = 0, self._settings.pauses()
        while True:
            try:
                return await self._store(event, paths)
            except StaleLease:
                raise
            except TemporaryTrouble as trouble:
                log.warning("upload.again", paths=len(paths), why=str(trouble))
                if self._is_late:
                    raise UploadGivenUp(str(trouble)) from trouble
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
        if any(ticket.is_known for ticket in answer.tickets):
            files = [
                await self._proven(file) if ticket.is_known else file
                for file, ticket in zip(files, answer.tickets, strict=True)
            ]
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

    async def _proven(self, file: ArtifactFile) -> ArtifactFile:
        """The same with the proof that it is here."""
        found = await proven(self._folder.run / file.path, self._digests[file.path])
        return file.model_copy(update={"possession": found.possession})

    def _move(self, place: Cursor) -> None:
        if place != self._progress.place:
            self._change(place=place)

    def _change(self, **changes: object) -> None:
        """Take what is given, and keep it on disk, which is not waited for."""
        self._progress = self._progress.model_copy(update=changes)
        try:
            write_whole(self._folder.uploaded, self._progress.model_dump_json(), synced=False)
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


def _named(event: StoredEvent) -> str:
    return event.manifest if isinstance(event, CheckpointEvent) else event.path
