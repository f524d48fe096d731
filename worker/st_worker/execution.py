"""The part of an attempt that ends with its process: fetch, start or take over, stop, look back."""

import asyncio
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from typing import Protocol

import structlog

from st_shared.protocol.states import AttemptState, FailureKind, Outcome
from st_worker.errors import FULL_DISK, NoRoom, RequestRefused, StaleLease, TransferError
from st_worker.folder import AttemptFolder
from st_worker.journal import Journal
from st_worker.meeting import meet
from st_worker.notes import Notes
from st_worker.orders import Orders
from st_worker.outcome import described, ending_by_order, failed, on_full_disk
from st_worker.programs import Launch, program_of
from st_worker.record import Ending, KeptRecord, RecordedProcess, StopCause
from st_worker.secrets import Secrets
from st_worker.trainer import TrainerExit, TrainerProcess
from st_worker.workplace import Workplace

log = structlog.get_logger(__name__)


class Tell(Protocol):
    """Takes the state that the attempt has reached."""

    def __call__(self, state: AttemptState) -> None:
        """Report ``state``."""


class Execution:
    """Runs the program of one attempt to its end, whoever started it."""

    def __init__(
        self,
        place: Workplace,
        folder: AttemptFolder,
        record: KeptRecord,
        orders: Orders,
        tell: Tell,
    ) -> None:
        self._place, self._folder, self._record = place, folder, record
        self._orders, self._tell = orders, tell
        start = record().claim.acked_seq
        self._notes = Notes(folder.journal, start=start, clock=place.clock)
        in_gang = record().claim.gang is not None
        self._program = program_of(record().kind, place, folder, self._notes, in_gang=in_gang)
        self._secrets = Secrets(place.controller, record().claim)
        self._process: TrainerProcess | None = None
        self._seen_at: float | None = None
        self._had_stragglers = False
        self.used_seconds = record().used_seconds
        """Once it is over, for how long it had its slots; none: nobody knows."""

    @property
    def used_so_far(self) -> float | None:
        """While it goes on: for how long it is known to have had its slots; none: nobody knows.

        Until now while it is prepared; then until the program was last seen to run, which an agent
        that was frozen, or has come back, may find to have ended long ago.
        """
        record, elapsed = self._record(), self._record().elapsed
        if record.process is None or record.began is None or elapsed is None:
            return elapsed
        return 0.0 if self._seen_at is None else record.began.until(self._seen_at)

    async def run(self, slots: AsyncExitStack) -> Ending:
        """How it ended, noted in the record; ``slots`` gets hold of the attempt's slots."""
        loop = asyncio.get_running_loop()
        limit = loop.call_later(
            self._record().time_left(self._place.clock()), self._orders.give, "time_limit"
        )
        known = self._record().ending
        try:
            ending = known or await self._run(slots)
        finally:
            limit.cancel()
        if known is None:
            self._record.change(ending=ending, used_seconds=self.used_seconds)
        return ending

    async def end_processes(self) -> None:
        """End whatever runs for the attempt, started here or found, and return once it is gone."""
        process = self._process or await asyncio.to_thread(self._found)
        if process is not None:
            await sweep(process, self._place.settings.poll_seconds)

    async def _run(self, slots: AsyncExitStack) -> Ending:
        try:
            return await self._through(slots)
        finally:
            if self.used_seconds is None:  # it was never started
                self.used_seconds = self._record().elapsed

    async def _through(self, slots: AsyncExitStack) -> Ending:
        process = await asyncio.to_thread(self._found)
        if process is None:
            try:
                process = await self._begin(slots)
            except NoRoom as error:
                return self._given_back(error)
            except TransferError as error:
                return self._failed(FailureKind.TRANSFER, str(error))
            except OSError as error:
                return self._failed(*_explained(error))
            except StaleLease:
                raise
            except RequestRefused as refused:
                if refused.problem.code != "secret_missing":
                    raise
                return self._failed(FailureKind.BAD_SPEC, refused.problem.detail)
            if process is None:
                cause = self._orders.cause or "stale"
                return ending_by_order(cause, " while its datasets were being fetched")
        else:
            log.info("program.taken_over", pid=process.pid)
            self._keep(process)
            await slots.enter_async_context(self._place.slots.hold(self._record().claim.slots))
        self._tell(AttemptState.RUNNING)
        self._process = process
        ended = await self._until_ended(process)
        self.used_seconds = await asyncio.to_thread(self._used_until, ended)
        await self._secrets.take_out_of(self._folder.output)
        return await asyncio.to_thread(self._concluded, ended)

    def _found(self) -> TrainerProcess | None:
        """What an earlier agent started, alive or not; none when there was none."""
        known, run_dir = self._record().process, self._folder.run
        if known is not None:
            gone = TrainerProcess(run_dir, known.pid, started=known.started)
            return TrainerProcess.find(run_dir) or gone
        # The agent may have died between the start and its record: nothing may run twice.
        return TrainerProcess.find(run_dir) or TrainerProcess.ended(run_dir)

    async def _begin(self, slots: AsyncExitStack) -> TrainerProcess | None:
        """A fresh process; none when an order to stop came first."""
        self._tell(AttemptState.PREPARING)
        preparing = asyncio.create_task(self._prepare(slots))
        stopping = asyncio.create_task(self._orders.wait())
        try:
            await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not preparing.done():
                return None
            return self._start(preparing.result())
        finally:
            for task in (preparing, stopping):
                task.cancel()
            await asyncio.gather(preparing, stopping, return_exceptions=True)

    async def _prepare(self, slots: AsyncExitStack) -> Launch:
        claim = self._record().claim
        hostname = self._place.inventory.hostname
        part = f", node {claim.gang.node} of {claim.gang.nodes}" if claim.gang else ""
        self._notes.log(f"attempt {claim.number} on {hostname}, slots {claim.slots}{part}")
        prepared = await self._program.prepare(claim)
        given = await self._secrets.environment()
        launch = replace(prepared, environment={**prepared.environment, **given})
        await slots.enter_async_context(self._place.slots.hold(claim.slots))
        held = slots.enter_context(ExitStack())  # until the end: nobody knows when it listens
        where = await meet(self._place.controller, claim, self._place.environment, held)
        if where is None:
            return launch
        self._notes.log(f"all {where.nodes} nodes are ready; they meet at {where.address}")
        return self._program.joined(launch, where)

    def _start(self, launch: Launch) -> TrainerProcess:
        process = TrainerProcess.start(
            self._folder.run, launch.command, launch.environment, self._folder.output
        )
        self._keep(process)
        log.info("program.started", pid=process.pid)
        return process

    def _keep(self, process: TrainerProcess) -> None:
        self._record.change(process=RecordedProcess(pid=process.pid, started=process.started))

    async def _until_ended(self, process: TrainerProcess) -> TrainerExit:
        """Wait for the end; an order asks first and, when its grace is over, ends the session."""
        now = asyncio.get_running_loop().time
        answered: StopCause | None = None
        deadline = float("inf")
        while True:
            looked_at = time.monotonic()
            if (ended := await _exit(process)) is not None:
                break
            self._seen_at = looked_at
            cause = self._orders.cause
            if cause and cause != answered:
                await asyncio.to_thread(process.ask)
                answered, deadline = cause, min(deadline, now() + self._grace(cause))
            if now() >= deadline:
                await asyncio.to_thread(process.kill)
            await self._orders.pause(self._place.settings.poll_seconds)
        self._had_stragglers = await sweep(process, self._place.settings.poll_seconds)
        return ended

    def _used_until(self, ended: TrainerExit) -> float | None:
        """For how long it had its slots; none: nobody knows when it claimed them.

        Until its supervisor noted its end, else until it was seen to be gone; where no agent
        watched, until the last line that it wrote.
        """
        record = self._record()
        if self._had_stragglers:
            return record.elapsed
        if ended.monotonic is not None and record.began is not None:
            return record.began.until(ended.monotonic)
        if self._seen_at is not None:
            return record.elapsed
        wrote = Journal(self._folder.journal).last_at()
        return max(0.0, (wrote - record.claimed_at).total_seconds()) if wrote else 0.0

    def _concluded(self, ended: TrainerExit) -> Ending:
        """The ending, with a last line in the journal for people."""
        ending = self._program.ending(ended, self._orders.cause)
        if why := self._place.room.exhaustion():
            ending = on_full_disk(ending, why)
        said = described(ended, self._program.name)
        log.info("program.ended", outcome=ending.outcome)
        if ending.failure:
            self._notes.log(said, "error")
            if self._folder.output.stat().st_size:
                self._notes.output_log(self._folder.output.name)
        elif ended.code != 0:
            self._notes.log(f"{ending.outcome}: {said}")
        return ending

    def _given_back(self, lack: NoRoom) -> Ending:
        """It goes on elsewhere, or here once there is room; that costs it no try."""
        self._place.room.note_lack(lack.size)
        return Ending(
            outcome=Outcome.PREEMPTED,
            failure=self._failed(FailureKind.DISK_FULL, str(lack)).failure,
        )

    def _failed(self, kind: FailureKind, message: str) -> Ending:
        self._notes.log(message, "error")
        return failed(kind, message)

    def _grace(self, cause: StopCause) -> float:
        settings = self._place.settings
        return {
            "cancel": settings.cancel_grace_seconds,
            "shutdown": settings.shutdown_grace_seconds,
            "stale": 0.0,
        }.get(cause, self._record().grace or settings.preempt_grace_seconds)


async def _exit(process: TrainerProcess) -> TrainerExit | None:
    """How it ended; none while it runs. A look that hangs holds up this attempt alone."""
    return process.exit() if process.is_child else await asyncio.to_thread(process.exit)


async def sweep(process: TrainerProcess, poll_seconds: float) -> bool:
    """End what is left of a session and return once nothing is; whether anything was.

    What has ended owns nothing.
    """
    found = False
    while members := await asyncio.to_thread(process.members):
        found = True
        log.info("program.sweep", pids=members)
        await asyncio.to_thread(process.kill)
        await asyncio.sleep(poll_seconds)
    await _exit(process)  # so that a child of this agent is reaped
    return found


def _explained(error: OSError) -> tuple[FailureKind, str]:
    if error.errno in FULL_DISK:
        return FailureKind.DISK_FULL, f"the worker's disk is full: {error}"
    return FailureKind.TRANSFER, f"the worker could not prepare the attempt: {error}"
