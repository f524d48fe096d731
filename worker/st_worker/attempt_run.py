"""One attempt from its claim to its finish, begun here or taken over from an agent that died."""

import asyncio
import time
from contextlib import AsyncExitStack

import structlog

from st_shared.content_cache import ContentCache
from st_shared.protocol.states import AttemptState, FailureKind, Outcome
from st_shared.protocol.worker import FinishRequest, Lease
from st_worker.errors import (
    FULL_DISK,
    Abandoned,
    JournalLost,
    Refused,
    SequenceGap,
    StaleLease,
    WorkerError,
)
from st_worker.execution import Execution
from st_worker.folder import AttemptFolder
from st_worker.journal import Journal
from st_worker.noop import Noop
from st_worker.orders import Orders
from st_worker.outcome import failed
from st_worker.record import AttemptRecord, Ending, KeptRecord, StopCause
from st_worker.shipping import Shipping
from st_worker.uploads import Uploads
from st_worker.workplace import Workplace

log = structlog.get_logger(__name__)

RELEASE_BYTES = 4 * 2**20
"""Of a journal that is worked off, what is given back at one time."""
_USING_SECONDS = 3600.0
_SENTENCES = 49
"""Files that could not be stored, of which a job tells."""

_GIVEN_UP = (Abandoned, StaleLease, JournalLost)
"""After these nobody waits for a report."""


class AttemptRun:
    """Works, ships and uploads side by side; whatever is needed to go on lies in its folder."""

    def __init__(self, place: Workplace, folder: AttemptFolder, record: AttemptRecord) -> None:
        kept = KeptRecord(folder, record)
        journal = Journal(folder.journal, place.clock)
        start = record.claim.acked_seq
        self._place, self._folder, self._record = place, folder, kept
        self._orders = Orders(kept)
        self._shipping = Shipping(
            place.controller,
            record.lease,
            folder,
            journal,
            start=start,
            poll_seconds=place.settings.poll_seconds,
            on_stop=self._orders.give,
            on_moved=self._release,
            linger_seconds=place.settings.linger_seconds,
        )
        self._journal, self._released = journal, 0
        self._keeps_run = self._has_ended = False
        self._uploads = Uploads(
            place.controller,
            place.transfer,
            record.lease,
            folder,
            journal,
            place.settings,
            start=start,
            clock=place.clock,
            acknowledged=self._shipping.acknowledged,
        )
        self._work: Execution | Noop = (
            Noop(place, kept, self._orders, self._shipping.tell)
            if record.kind == "noop"
            else Execution(place, folder, kept, self._orders, self._shipping.tell)
        )

    @property
    def lease(self) -> Lease:
        """The lease that it runs under."""
        return self._record().lease

    @property
    def lease_in_use(self) -> Lease:
        """The same with what its slots were used for until now."""
        has_ended = self._has_ended or self._record().ending is not None
        used = self._used if has_ended else self._work.used_so_far
        return self.lease.model_copy(update={"used_seconds": used, "ended": has_ended})

    @property
    def _used(self) -> float | None:
        return self._work.used_seconds

    @property
    def record(self) -> AttemptRecord:
        """What is kept of it on disk."""
        return self._record()

    def order_stop(self, cause: StopCause) -> None:
        """Stop, unless an order at least as strong stands already."""
        self._orders.give(cause)

    async def run(self) -> None:
        """Run to the finish; a fault of this agent ends the attempt as failed, not the agent.

        Raises:
            Refused: the controller does not know this worker any more.
        """
        claim = self._record().claim
        self._place.models.hold(claim.attempt_id, self._record().claimed_at.timestamp())
        with structlog.contextvars.bound_contextvars(attempt=claim.attempt_id, job=claim.job_id):
            async with AsyncExitStack() as slots:
                fault = await self._run(slots)
                if isinstance(fault, Refused):
                    raise fault
                if isinstance(fault, _GIVEN_UP):
                    log.warning("attempt.abandoned", why=str(fault))
                    await self.discard()
                elif fault is not None:
                    log.error("attempt.fault", exc_info=fault)
                    await self._report(fault)

    async def discard(self) -> None:
        """End every process of the attempt and forget it; nothing is reported."""
        self._orders.close()
        await self.end_processes()
        await self._forget()

    async def end_processes(self) -> None:
        """End every process of the attempt; its record stays."""
        await self._work.end_processes()

    async def _run(self, slots: AsyncExitStack) -> Exception | None:
        """The first error that ended it early; none when the controller knows how it ended."""
        try:
            async with asyncio.TaskGroup() as group:
                shipping = group.create_task(self._shipping.run())
                uploads = group.create_task(self._uploads.run())
                meanwhile = [
                    group.create_task(self._until_stale()),
                    group.create_task(self._go_on_using()),
                ]
                ending = await self._work.run(slots)
                self._has_ended = True
                self._place.models.release(self.lease.attempt_id)
                await slots.aclose()
                ending = await self._store(ending, shipping, uploads)
                await self._finish(ending)
                for task in meanwhile:
                    task.cancel()
        except ExceptionGroup as errors:
            return _first(errors)
        log.info("attempt.finished", outcome=ending.outcome)
        succeeded = ending.outcome == Outcome.SUCCEEDED
        self._keeps_run = succeeded and bool(self._uploads.refused)
        await self._forget()
        return None

    def _release(self) -> None:
        """Give the disk what both have dealt with, now and then: a run may go on for months."""
        dealt_with = min(self._shipping.offset, self._uploads.offset)
        if dealt_with - self._released >= RELEASE_BYTES:
            self._released = dealt_with
            self._journal.release(dealt_with)

    async def _until_stale(self) -> None:
        await self._orders.wait("stale")
        raise Abandoned("the controller says that the lease is void")

    async def _go_on_using(self) -> None:
        """Tell the cache now and then that this attempt still reads its datasets."""
        while self._record().kind == "train":  # nothing else reads any
            try:
                await asyncio.to_thread(self._content.go_on_using, self.lease.attempt_id)
            except OSError as error:
                log.warning("cache.mark_not_renewed", why=str(error))
            await asyncio.sleep(_USING_SECONDS)

    @property
    def _content(self) -> ContentCache:
        return self._place.cache.content

    async def _store(
        self, ending: Ending, shipping: "asyncio.Task[None]", uploads: "asyncio.Task[None]"
    ) -> Ending:
        """Wait until all is stored and acknowledged; a cancelled job waits for no upload."""
        if self._record().kind != "noop":  # it has nothing to upload, and is over sooner so
            self._shipping.tell(AttemptState.UPLOADING, self._used)
        self._shipping.seal()
        self._uploads.seal(keep_trying=ending.outcome == Outcome.SUCCEEDED)
        cancelled = asyncio.create_task(self._orders.wait("cancel"))
        try:
            await asyncio.wait({uploads, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        await shipping
        if self._orders.cause == "cancel":
            uploads.cancel()
            return Ending(outcome=Outcome.CANCELLED)
        return ending

    async def _finish(self, ending: Ending) -> None:
        while True:
            request = FinishRequest(
                epoch=self.lease.epoch,
                outcome=ending.outcome,
                failure=ending.failure,
                unstored=self._unstored(),
                used_seconds=self._used,
                last_seq=self._shipping.acked_seq,
            )
            try:
                await self._place.controller.finish(self.lease.attempt_id, request)
            except SequenceGap as gap:
                await self._shipping.rewind(gap.acked_seq)
                await self._shipping.run()
            else:
                self._orders.close()
                return

    def _unstored(self) -> list[str]:
        """A sentence for each file that could not be stored, and where it lies."""
        said = [sentence[:1500] for sentence in self._uploads.refused[:_SENTENCES]]
        return [*said, f"It is kept in {self._folder.run} on the worker."] if said else []

    async def _report(self, fault: Exception) -> None:
        """Tell the controller that this agent could not go on with the attempt."""
        self._orders.close()
        await self.end_processes()
        said = f"the worker failed: {type(fault).__name__}: {fault}"
        kind = FailureKind.CRASHED
        if isinstance(fault, OSError) and fault.errno in FULL_DISK:
            kind = FailureKind.DISK_FULL
        self._shipping.seal()
        try:
            await self._shipping.run()  # what was written before the fault
            await self._finish(failed(kind, said))
        except WorkerError as error:
            log.warning("attempt.unreported", why=str(error))
        await self._forget()

    async def _forget(self) -> None:
        """Remove the folder, except where runs, or what was not stored, are kept."""
        if self._place.settings.keep_runs or self._keeps_run:
            self._folder.keep()
        else:
            await asyncio.to_thread(self._folder.remove)
        self._place.models.release(self.lease.attempt_id)
        if self._record().kind == "noop":
            return
        await asyncio.to_thread(self._place.models.tidy, time.time())
        if self._record().kind != "train":
            return
        try:
            await asyncio.to_thread(self._content.release, self.lease.attempt_id)
        except OSError as error:  # it counts as needed for a day
            log.warning("cache.not_released", why=str(error))


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """The error that counts: that the worker is refused, then a void lease, then the first."""
    flat = list(_flattened(errors))
    for kind in (Refused, *_GIVEN_UP):
        for error in flat:
            if isinstance(error, kind):
                return error
    return flat[0]


def _flattened(errors: ExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in errors.exceptions:
        found += _flattened(error) if isinstance(error, ExceptionGroup) else [error]
    return found
