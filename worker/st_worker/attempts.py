"""All attempts of an agent: taken over, claimed, stopped, given back."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from st_shared.protocol.states import FailureKind, Outcome
from st_shared.protocol.worker import FinishRequest, Lease, Offer, StopOrder
from st_worker.attempt_run import AttemptRun
from st_worker.errors import FULL_DISK, RequestRefused, TemporaryTrouble, UsageError
from st_worker.execution import sweep
from st_worker.folder import AttemptFolder, StateFolder
from st_worker.occupancy import Ours
from st_worker.outcome import failed
from st_worker.record import AttemptRecord
from st_worker.removal import remove_tree
from st_worker.slot_time import Instant
from st_worker.trainer import TrainerProcess
from st_worker.workplace import Workplace

log = structlog.get_logger(__name__)

Work = Coroutine[Any, Any, None]


def ours_of(records: Sequence[AttemptRecord]) -> Ours:
    """What belongs to these attempts, whichever agent started them."""
    return Ours(
        supervisors=frozenset(each.pid for each in records if each.pid is not None),
        attempts=frozenset(each.claim.attempt_id for each in records),
        slots=frozenset(index for each in records for index in each.claim.slots),
    )


class Attempts:
    """Each attempt runs in a task of its own, which ``spawn`` makes and watches."""

    def __init__(
        self,
        folder: StateFolder,
        place: Workplace,
        spawn: Callable[[Work], "asyncio.Task[None]"],
        on_idle: Callable[[], None],
    ) -> None:
        self._folder, self._place = folder, place
        self._spawn, self._on_idle = spawn, on_idle
        self._runs: dict[str, AttemptRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False
        self.taken = 0
        """Attempts that were claimed or taken over so far."""

    @property
    def are_none(self) -> bool:
        """Whether nothing is claimed, running or being reported."""
        return not self._tasks

    @property
    def leases(self) -> list[Lease]:
        """Of every attempt that this worker runs or still has to report, as heartbeats tell it."""
        return [run.lease_in_use for run in self._runs.values()]

    @property
    def ours(self) -> Ours:
        """What runs here now, so that it is not taken for somebody else's."""
        return ours_of([run.record for run in self._runs.values()])

    def recall(self) -> list[AttemptRecord]:
        """Attempts that an earlier agent on this folder had not finished.

        What runs for one whose record is damaged is ended meanwhile.

        Raises:
            UsageError: a newer agent wrote one of them, or it runs where this folder lay before.
        """
        records = []
        for folder in self._folder.known_attempts():
            try:
                record = AttemptRecord.load(folder)
                _must_not_run_elsewhere(record, folder)
                records.append(record)
            except ValidationError as error:
                log.warning("record.damaged", path=str(folder.root), mistakes=error.error_count())
                self._track(folder.root.name, self._set_aside(folder))
        return records

    async def _set_aside(self, folder: AttemptFolder) -> None:
        if process := await asyncio.to_thread(TrainerProcess.find, folder.run):
            await sweep(process, self._place.settings.poll_seconds)
        folder.record.rename(folder.record.with_suffix(".damaged"))

    def take_over(self, records: list[AttemptRecord], abandon: list[str]) -> None:
        """Go on with ``records``, but end those whose lease is void.

        Nobody waits for that: a program that cannot be ended, because a driver hangs say, must
        not keep this worker from telling that it is alive.
        """
        for record in records:
            attempt_id = record.claim.attempt_id
            run = AttemptRun(self._place, self._folder.attempt(attempt_id), record)
            if attempt_id in abandon:
                log.warning("attempt.abandoned", attempt=attempt_id)
                self._track(attempt_id, self._abandon(run, record))
            else:
                self._runs[attempt_id] = run
                self.taken += 1
                self._track(attempt_id, run.run())

    async def _abandon(self, run: AttemptRun, record: AttemptRecord) -> None:
        """Nothing else begins on its slots before it is gone."""
        async with self._place.slots.hold(record.claim.slots):
            await run.discard()

    def consider(self, offer: Offer) -> None:
        """Claim what is offered, unless that has begun already."""
        if offer.attempt_id not in self._tasks and not self._is_closing:
            self._track(offer.attempt_id, self._claim(offer))

    def stop(self, orders: list[StopOrder]) -> None:
        """Obey the controller; orders for attempts that are over change nothing."""
        for order in orders:
            run = self._runs.get(order.attempt_id)
            if run:
                run.order_stop(order.reason)

    async def give_back(self, seconds: float, hurry: asyncio.Event) -> bool:
        """Stop trainers at a checkpoint and report them; whether that was done in time."""
        self._is_closing = True
        for run in self._runs.values():
            run.order_stop("shutdown")
        hurried = asyncio.create_task(hurry.wait())
        ended = asyncio.gather(*self._tasks.values(), return_exceptions=True)
        waiting: list[asyncio.Future[Any]] = [hurried, ended]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        left = await self.let_go()
        for run in left:
            await run.end_processes()
        return not left

    async def drop(self) -> None:
        """End every trainer at once and forget it: nobody will take what they make."""
        self._is_closing = True
        for run in await self.let_go():
            await run.discard()

    async def let_go(self) -> list[AttemptRun]:
        """End the tasks but not the trainers; the attempts that were not over come back."""
        left, tasks = list(self._runs.values()), list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return left

    async def _claim(self, offer: Offer) -> None:
        """Claim and run; an offer that is over, or for which there is no room, is forgotten."""
        if lack := await asyncio.to_thread(self._place.room.lack):
            log.warning("offer.declined", attempt=offer.attempt_id, why=lack)
            return
        try:
            claim = await self._place.controller.claim(offer.attempt_id)
        except (RequestRefused, TemporaryTrouble) as error:
            log.warning("offer.lost", attempt=offer.attempt_id, why=str(error))
            return
        self.taken += 1
        log.info("attempt.claimed", attempt=claim.attempt_id, job=claim.job_id, slots=claim.slots)
        folder = self._folder.attempt(claim.attempt_id)
        record = AttemptRecord(
            claim=claim,
            claimed_at=self._place.clock(),
            began=Instant.now(),
            root=str(folder.root),
        )
        try:
            folder.create()
            record.save(folder)
        except OSError as error:
            await self._decline(record, error)
            return
        run = self._runs[claim.attempt_id] = AttemptRun(self._place, folder, record)
        if self._is_closing:
            run.order_stop("shutdown")
        await run.run()

    async def _decline(self, record: AttemptRecord, error: OSError) -> None:
        """Give back at once what cannot even be written down; of a full disk no job is guilty."""
        log.error("attempt.not_kept", attempt=record.claim.attempt_id, why=str(error))
        is_full = error.errno in FULL_DISK
        kind = FailureKind.DISK_FULL if is_full else FailureKind.CRASHED
        ending = failed(kind, f"the worker cannot keep what it has claimed: {error}")
        if is_full:
            self._place.room.note_refusal(error)
        request = FinishRequest(
            epoch=record.claim.epoch,
            outcome=Outcome.PREEMPTED if is_full else Outcome.FAILED,
            failure=ending.failure,
            used_seconds=record.elapsed,
            last_seq=record.claim.acked_seq,
        )
        try:
            await self._place.controller.finish(record.claim.attempt_id, request)
        except (RequestRefused, TemporaryTrouble) as trouble:
            log.warning("attempt.unreported", attempt=record.claim.attempt_id, why=str(trouble))
        await asyncio.to_thread(remove_tree, self._folder.attempt(record.claim.attempt_id).root)

    def _track(self, attempt_id: str, work: Work) -> None:
        """Run the task of an attempt and forget it once it is over."""

        def forget(_task: "asyncio.Task[None]") -> None:
            self._runs.pop(attempt_id, None)
            self._tasks.pop(attempt_id, None)
            self._on_idle()

        task = self._tasks[attempt_id] = self._spawn(work)
        task.add_done_callback(forget)


def _must_not_run_elsewhere(record: AttemptRecord, folder: AttemptFolder) -> None:
    """Refuse a folder that was moved away from under a program: it still writes to the old path."""
    if record.root is None or record.root == str(folder.root):
        return
    was = AttemptFolder(Path(record.root))
    if running := TrainerProcess.find(was.run):
        raise UsageError(
            f"the state folder was moved from {was.root.parent.parent} while "
            f"{record.lease.attempt_id} runs there (pid {running.pid}): move it back, or end "
            "that process"
        )
