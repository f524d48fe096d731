"""The life of an agent: register, be alive, take orders and offers, leave."""

import asyncio
import signal
import time
from collections.abc import Coroutine
from enum import Enum
from random import random
from typing import Any, TypeVar, assert_never

import structlog
from pydantic import ValidationError

from st_shared.clock import Clock, utc_now
from st_shared.protocol.endpoints import WorkerEvent, read_event
from st_shared.protocol.sse import ServerSentEvent
from st_shared.protocol.states import WorkerDesired
from st_shared.protocol.worker import (
    MOST_CACHED,
    Condition,
    DesiredChange,
    GarbageOrder,
    Heartbeat,
    Offer,
    RegisterReply,
    RegisterRequest,
    RotateOrder,
    StopOrder,
    Sync,
)
from st_worker import garbage
from st_worker.attempts import Attempts, Work, ours_of
from st_worker.backoff import delays
from st_worker.beside import Beside
from st_worker.client import Controller
from st_worker.datasets import DatasetCache
from st_worker.errors import Refused, RequestRefused, TemporaryTrouble
from st_worker.folder import StateFolder
from st_worker.joining import join
from st_worker.occupancy import Ours
from st_worker.record import AttemptRecord
from st_worker.room import room_of
from st_worker.rotation import look_after
from st_worker.sampling import Sample, Sampler
from st_worker.settings import AgentSettings
from st_worker.slots import Slots
from st_worker.stream import Stream
from st_worker.transfer import Transfer
from st_worker.workplace import Workplace

log = structlog.get_logger(__name__)

T = TypeVar("T")

_GOODBYE_SECONDS = 3.0
STALLED_SECONDS = 2.0
"""From how late a heartbeat is on the log says that something kept this agent from working."""


class Departure(Enum):
    """Why an agent leaves; its value is the exit code."""

    SIGNAL = (0, "told to by a signal")
    DRAINED = (0, "drained, and it was here for a while only")
    IDLE = (0, "had nothing to do for as long as it was to wait")
    ONE_JOB = (0, "has done the one job that it was here for")
    HANDOVER = (75, "makes way for the next agent on this folder; trainers go on")
    FAULT = (1, "an error of its own; trainers go on and are taken over by the next agent")
    UNREPORTED = (1, "attempts could not be reported; the next agent on this folder will")
    REFUSED = (3, "the controller does not know it any more")
    RETIRED = (3, "retired by an operator")

    @property
    def exit_code(self) -> int:
        """Of the process."""
        return self.value[0]


_OF_ITS_OWN = {Departure.SIGNAL, Departure.DRAINED, Departure.IDLE, Departure.ONE_JOB}
"""Departures that the controller hears of from the agent; ephemeral workers leave it for good."""


class Agent:
    """One worker; ``run`` it once."""

    def __init__(
        self,
        folder: StateFolder,
        controller: Controller,
        transfer: Transfer,
        description: RegisterRequest,
        settings: AgentSettings,
        *,
        sampler: Sampler | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._folder, self._controller, self._description = folder, controller, description
        self._settings = settings
        room = room_of(folder, settings)
        self._sampler = sampler or Sampler.of_processors(description.inventory, folder.root, room)
        self._cache = DatasetCache(folder, transfer)
        self._models = folder.model_caches(settings)
        self._datasets = Beside("datasets", self._cache.digests)
        self._pulse = Beside("pulse", folder.note_pulse)
        self._told_cached: list[str] = []
        self._told_condition = Condition()
        # What nobody is given of the host's own cache is not told either.
        self._told_models = description.inventory.cached_models if settings.shares_models else []
        place = Workplace(
            controller,
            transfer,
            self._cache,
            self._models,
            Slots([slot.index for slot in description.inventory.slots]),
            description.inventory,
            self._sampler.room,
            settings,
            folder.trainer_cache(),
            clock,
        )
        self._desired = WorkerDesired.ACTIVE
        self._attempts = Attempts(folder, place, self._spawn, self._note_end)
        self._departure: asyncio.Future[Departure] = asyncio.get_running_loop().create_future()
        self._hurry = asyncio.Event()
        self._interval = 0.0
        self._idle_since = asyncio.get_running_loop().time()
        self._stream = Stream(controller, settings, self._take_event)
        self._rotating: asyncio.Task[None] | None = None
        self._must_rotate = False
        self._collecting: asyncio.Task[None] | None = None

    async def run(self, token: str | None = None) -> Departure:
        """Work until told to leave; why it left comes back.

        Raises:
            UsageError: there is neither a credential nor a token.
            Refused: the controller takes neither.
        """
        records = self._attempts.recall()
        reply = await self._unless_leaving(self._join(token, records))
        if reply is None:
            return await self._departure
        structlog.contextvars.bind_contextvars(worker=reply.worker_id)
        self._attempts.take_over(records, reply.abandon)
        self._obey(reply.desired)
        self._interval = reply.heartbeat_seconds
        loops = [self._spawn(self._beat(reply.heartbeat_seconds))]
        try:
            if reply.credential is None:
                await self._become_the_only_one()
            loops += [self._spawn(self._stream.run()), self._spawn(self._leave_when_idle())]
            departure = await self._departure
            await self._say_goodbye(departure)
            departure = await self._wind_up(departure)
        finally:
            chores = [task for task in (self._rotating, self._collecting) if task]
            for task in [*loops, *chores]:
                task.cancel()
            await asyncio.gather(*loops, *chores, return_exceptions=True)
        if self._description.ephemeral and departure in _OF_ITS_OWN:
            await self._sign_off()
        return departure

    def leave(self, departure: Departure) -> None:
        """Begin to leave; asked a second time by a signal, wait no longer for trainers."""
        if not self._departure.done():
            log.info("agent.leaving", why=departure.value[1])
            self._departure.set_result(departure)
        elif departure is Departure.SIGNAL:
            self._hurry.set()

    def leave_on_signals(self) -> None:
        """Take SIGTERM and SIGINT as the wish that it leaves, SIGHUP that another takes over."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.leave, Departure.HANDOVER)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.leave, Departure.SIGNAL)

    async def _join(self, token: str | None, records: list[AttemptRecord]) -> RegisterReply:
        holding = [record.lease for record in records]
        await asyncio.to_thread(self._models.look)
        patience = self._settings.first_sample_seconds
        sample, cached = await self._look(ours_of(records), patience)
        told = {"cached": cached, "condition": sample.condition, "cached_models": self._told_models}
        inventory = self._description.inventory.model_copy(update=told)
        description = self._description.model_copy(
            update={"holding": holding, "inventory": inventory}
        )
        reply = await join(self._controller, self._folder, description, token)
        self._told_cached, self._told_condition = cached, sample.condition
        log.info(
            "agent.registered",
            worker=reply.worker_id,
            controller=self._controller.url,
            holding=len(holding),
        )
        return reply

    async def _become_the_only_one(self) -> None:
        """Change the credential that this worker came back with, before its stream brings any job.

        Whoever else holds that, as where an image of the host was started twice, is refused from
        now on: else both would be offered, and run, the same jobs.
        """
        self._do_chores(rotate=True)
        changing: list[asyncio.Future[Any]] = [self._departure]
        changing += [self._rotating] if self._rotating else []
        patience = self._settings.joint_timeout_seconds
        await asyncio.wait(changing, timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    async def _beat(self, interval: float) -> None:
        """Say that this worker is alive, whatever its trainers do, and obey what comes back."""
        pauses = delays(self._settings.first_backoff_seconds, interval)
        while True:
            pause = interval * (0.9 + random() / 10)  # noqa: S311  (so that no fleet marches)
            beat = await self._heartbeat()
            await self._pulse.take(0)
            try:
                reply = await self._controller.heartbeat(beat, interval)
            except TemporaryTrouble as trouble:
                pause = min(interval, next(pauses))
                log.warning("heartbeat.lost", why=str(trouble))
            except RequestRefused as error:
                log.warning("heartbeat.refused", why=str(error))
            else:
                pauses = delays(self._settings.first_backoff_seconds, interval)
                self._told_cached = self._told_cached if beat.cached is None else beat.cached
                self._told_condition = beat.condition or self._told_condition
                if beat.cached_models is not None:
                    self._told_models = beat.cached_models
                self._obey(reply.desired)
                self._attempts.stop(reply.stops)
                self._do_chores(rotate=reply.rotate, collect_garbage=reply.collect_garbage)
                for offer in reply.offers:
                    self._consider(offer)
            await _sleep(pause)

    async def _say_goodbye(self, departure: Departure) -> None:
        """Let the controller offer nothing more; without an answer it finds out by the silence."""
        if departure not in _OF_ITS_OWN:
            return
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._controller.heartbeat(await self._heartbeat())
        except (TemporaryTrouble, RequestRefused, Refused, TimeoutError) as trouble:
            log.warning("goodbye.lost", why=str(trouble))

    async def _heartbeat(self) -> Heartbeat:
        sample, cached = await self._look(self._attempts.ours, self._settings.sample_seconds)
        models = sample.models if self._settings.shares_models else None
        return Heartbeat(
            cached=cached if cached != self._told_cached else None,
            holding=self._attempts.leases,
            usage=sample.usage,
            cached_models=models if models != self._told_models else None,
            condition=sample.condition if sample.condition != self._told_condition else None,
            leaving=self._leaves_for_good,
            deaf=self._stream.is_deaf(2 * self._interval),
        )

    async def _look(self, ours: Ours, deadline: float) -> tuple[Sample, list[str]]:
        """How busy this host is, and names of datasets and models that need not be fetched here."""
        sample, datasets = await asyncio.gather(
            self._sampler.take(ours, deadline), self._datasets.take(deadline)
        )
        return sample, [*(datasets or []), *self._models.known][:MOST_CACHED]

    @property
    def _leaves_for_good(self) -> bool:
        """Whether nobody goes on with its leases; a beat may be made while it makes way."""
        return self._departure.done() and self._departure.result() in _OF_ITS_OWN

    def _take_event(self, received: ServerSentEvent) -> None:
        try:
            event = read_event(received.event, received.data)
        except ValidationError as error:
            log.warning("stream.unreadable", kind=received.event, mistakes=error.error_count())
            return
        if event is None:
            log.debug("stream.unknown", kind=received.event)
        else:
            self._follow(event)

    def _follow(self, event: WorkerEvent) -> None:
        match event:
            case Offer():
                self._consider(event)
            case StopOrder():
                self._attempts.stop([event])
            case DesiredChange():
                self._obey(event.desired)
            case Sync():
                self._obey(event.desired)
                self._attempts.stop(event.stops)
                self._do_chores(rotate=event.rotate, collect_garbage=event.collect_garbage)
                for offer in event.offers:
                    self._consider(offer)
            case RotateOrder():
                self._do_chores(rotate=True)
            case GarbageOrder():
                self._do_chores(collect_garbage=True)
            case _:
                assert_never(event)

    def _do_chores(self, *, rotate: bool = False, collect_garbage: bool = False) -> None:
        """Begin what is ordered, unless it is under way: orders are repeated until it is done."""
        self._must_rotate |= rotate
        if not self._is_busy(self._rotating):
            rotate, self._must_rotate = self._must_rotate, False
            changing = look_after(self._controller, self._folder, rotate=rotate)
            self._rotating = self._spawn(changing)
        if collect_garbage and not self._is_busy(self._collecting):
            self._collecting = self._spawn(self._collect_garbage())

    @staticmethod
    def _is_busy(task: "asyncio.Task[None] | None") -> bool:
        return task is not None and not task.done()

    async def _collect_garbage(self) -> None:
        live = [lease.attempt_id for lease in self._attempts.leases]
        report = await asyncio.to_thread(
            garbage.collect, self._folder, self._models, live, time.time()
        )
        log.info("garbage.collected", removed=report.removed, freed_gb=round(report.freed_gb, 3))
        try:
            await self._controller.report_garbage(report)
        except (TemporaryTrouble, RequestRefused) as trouble:
            log.warning("garbage.unreported", why=str(trouble))

    def _consider(self, offer: Offer) -> None:
        has_its_one = self._description.one_job and (
            self._attempts.taken or not self._attempts.are_none
        )
        is_closed = self._departure.done() or self._desired is not WorkerDesired.ACTIVE
        if is_closed or has_its_one:
            log.info("offer.declined", attempt=offer.attempt_id, desired=self._desired)
        else:
            self._attempts.consider(offer)

    def _obey(self, desired: WorkerDesired) -> None:
        if desired is not self._desired:
            log.info("agent.desired", desired=desired)
        self._desired = desired
        if desired is WorkerDesired.RETIRED:
            self.leave(Departure.RETIRED)
        self._leave_when_drained()

    def _note_end(self) -> None:
        """Something that this worker did is over."""
        self._idle_since = asyncio.get_running_loop().time()
        is_done = self._attempts.taken and self._attempts.are_none
        if self._description.one_job and is_done:
            self.leave(Departure.ONE_JOB)
        self._leave_when_drained()

    async def _leave_when_idle(self) -> None:
        """Leave once there was nothing to do for so long, where that is wished."""
        patience, loop = self._settings.idle_timeout_seconds, asyncio.get_running_loop()
        while patience is not None and not self._departure.done():
            left = patience
            if self._attempts.are_none:
                left = self._idle_since + patience - loop.time()
            if left <= 0:
                self.leave(Departure.IDLE)
            await asyncio.sleep(max(0.0, left))

    def _leave_when_drained(self) -> None:
        draining = self._desired is WorkerDesired.DRAINING
        if draining and self._description.ephemeral and self._attempts.are_none:
            self.leave(Departure.DRAINED)

    def _spawn(self, work: Work) -> "asyncio.Task[None]":
        """A task whose unexpected end is the end of this agent."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._examine)
        return task

    def _examine(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Refused):
            log.error("agent.refused", why=str(error))
            self.leave(Departure.REFUSED)
        elif error is not None:
            log.error("agent.fault", exc_info=error)
            self.leave(Departure.FAULT)

    async def _unless_leaving(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``; none when this agent was told to leave before there was one."""
        task = asyncio.create_task(work)
        waiting: list[asyncio.Future[Any]] = [task, self._departure]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return None

    async def _wind_up(self, departure: Departure) -> Departure:
        """Bring the attempts to the end that fits."""
        if departure is Departure.SIGNAL:
            settings = self._settings
            seconds = settings.shutdown_grace_seconds + settings.report_seconds
            if not await self._attempts.give_back(seconds, self._hurry):
                return Departure.UNREPORTED
        elif departure in {Departure.REFUSED, Departure.RETIRED}:
            await self._attempts.drop()
        else:
            await self._attempts.let_go()
        if departure is Departure.RETIRED:
            self._folder.credential.unlink(missing_ok=True)
        return departure

    async def _sign_off(self) -> None:
        """Leave for good: no trace stays, neither at the controller nor here."""
        try:
            async with asyncio.timeout(self._settings.report_seconds):
                await self._controller.leave()
        except (TemporaryTrouble, RequestRefused, Refused, TimeoutError) as trouble:
            log.warning("leave.lost", why=str(trouble))
        await asyncio.to_thread(self._folder.clear)


async def _sleep(seconds: float) -> None:
    """Sleep, and say so if it took much longer: a busy host, or a call that blocks the loop."""
    now = asyncio.get_running_loop().time
    due = now() + seconds
    await asyncio.sleep(seconds)
    if now() - due >= STALLED_SECONDS:
        log.warning("agent.stalled", seconds=round(now() - due, 1))
