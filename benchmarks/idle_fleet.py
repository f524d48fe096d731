"""Workers that do nothing but listen and say that they are alive, thousands in one process.

Each has two connections of its own, as an agent has: one for its stream, one for its heartbeats.
No task runs for a worker, so that the controller is what is measured.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from served import Api, Controller
from wire import Connection, EventStream, answer_of, encode

BEAT_SECONDS = 5.0
LATE_SECONDS = 1.0
TICK_SECONDS = 0.005
"""Between two looks for heartbeats that are due."""
TOGETHER = 64
"""Connections that are opened at one time."""
ORDER_SECONDS = 8.0
"""Between two orders that go to all."""
LIMIT = 60.0

Made = TypeVar("Made")


@dataclass
class Held:
    """What was seen while the workers were held."""

    beats: list[float] = field(default_factory=list)
    """Seconds until a heartbeat was answered."""
    offers: list[float] = field(default_factory=list)
    """Seconds from a submission until the offer."""
    orders: list[float] = field(default_factory=list)
    """Seconds from an order to all until one of them had it."""
    given: int = 0
    """Orders to all."""
    missed: int = 0
    """Heartbeats that were answered more than a second after they were due, or not with 200."""
    closed: int = 0
    """Connections that the controller closed."""


class Pulse(asyncio.Protocol):
    """The connection on which one worker beats."""

    def __init__(self, request: bytes, held: Held) -> None:
        self._request, self._held = request, held
        self._transport: asyncio.Transport | None = None
        self._came = b""
        self._due: float | None = None
        """When the beat that is not answered yet was due."""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def beat(self, due: float) -> None:
        """Send a beat that was due then; while another one waits for its answer, it is missed."""
        if self._due is not None or self.is_closed:
            self._held.missed += 1
            return
        assert self._transport
        self._due, self._sent = due, time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._came += data
        found = answer_of(self._came)
        if found is None or self._due is None:
            return
        now = time.perf_counter()
        status, _, self._came = found
        self._held.beats.append(now - self._sent)
        self._held.missed += status != 200 or now - self._due > LATE_SECONDS
        self._due = None

    @property
    def is_closed(self) -> bool:
        """Whether the controller has closed it."""
        return self._transport is None or self._transport.is_closing()

    @property
    def waits(self) -> bool:
        """Whether a beat is not answered yet."""
        return self._due is not None

    def close(self) -> None:
        """Close at once."""
        if self._transport:
            self._transport.close()


class Fleet:
    """All workers, by their credentials."""

    def __init__(self, server: Controller, credentials: list[str]) -> None:
        self._server, self._credentials = server, credentials
        self._streams: list[EventStream] = []
        self._pulses: list[Pulse] = []
        self._offered: asyncio.Queue[tuple[str, str, float]] = asyncio.Queue()
        self._begun = 0
        self._ordered_at = 0.0
        self.held = Held()

    async def open(self) -> None:
        """Connect them all; each has heard the beginning of its stream and has beaten once."""
        self._streams = await _some_at_a_time(self._follow, self._credentials)
        await _reached(lambda: self._begun == len(self._credentials))
        self._pulses = await _some_at_a_time(self._connect, self._credentials)
        for start in range(0, len(self._pulses), TOGETHER):
            part = self._pulses[start : start + TOGETHER]
            for pulse in part:
                pulse.beat(time.perf_counter())
            await _reached(lambda part=part: not any(pulse.waits for pulse in part))  # type: ignore[misc]
        self.held.beats.clear()
        self.held.missed = 0

    async def hold(self, api: Api, seconds: float) -> Held:
        """Beat and place a job now and then, for so long."""
        until = time.perf_counter() + seconds
        others = [
            asyncio.create_task(self._beat(until)),
            asyncio.create_task(self._order(api, until)),
        ]
        await self._place_jobs(api, until)
        await asyncio.gather(*others)
        connections = [*self._streams, *self._pulses]
        self.held.closed = sum(each.is_closed for each in connections)
        self.held.missed += sum(pulse.waits for pulse in self._pulses)
        return self.held

    def close(self) -> None:
        """End everything."""
        for each in [*self._streams, *self._pulses]:
            each.close()

    async def _follow(self, credential: str) -> EventStream:
        def hear(event: str, body: bytes) -> None:
            now = time.perf_counter()
            if event == "offer":
                self._offered.put_nowait((credential, json.loads(body)["attempt_id"], now))
            elif event == "collect_garbage":
                self.held.orders.append(now - self._ordered_at)
            elif event == "sync":
                self._begun += 1

        return await EventStream.open(self._server.port, credential, hear, "/v1/worker/stream")

    async def _connect(self, credential: str) -> Pulse:
        usage = {"slots": [{"index": 0, "utilisation": 3.5}], "disk_free_gb": 812.5}
        body = json.dumps({"usage": usage}).encode()
        request = encode("POST", "/v1/worker/heartbeat", credential, body)
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: Pulse(request, self.held), "127.0.0.1", self._server.port
        )
        return made

    async def _beat(self, until: float) -> None:
        """All of them, evenly spread over the time between two beats of one."""
        step = BEAT_SECONDS / len(self._pulses)
        begun, number = time.perf_counter(), 0
        while (due := begun + number * step) < until - LATE_SECONDS:
            await asyncio.sleep(max(TICK_SECONDS, due - time.perf_counter()))
            now = time.perf_counter()
            while (due := begun + number * step) <= now:
                self._pulses[number % len(self._pulses)].beat(due)
                number += 1
        await asyncio.sleep(until - time.perf_counter())

    async def _order(self, api: Api, until: float) -> None:
        """Something of all of them, now and then."""
        lane = await Connection.open(self._server.port)
        request = encode("POST", "/v1/workers:collect-garbage", api.key)
        while time.perf_counter() < until - ORDER_SECONDS:
            await asyncio.sleep(ORDER_SECONDS / 2)
            self._ordered_at = time.perf_counter()
            status, body = await lane.send(request)
            if status != 200:
                raise RuntimeError(f"{status}: {body.decode()}")
            self.held.given += 1
            await asyncio.sleep(ORDER_SECONDS / 2)
        lane.close()

    async def _place_jobs(self, api: Api, until: float) -> None:
        lane = await Connection.open(self._server.port)
        while time.perf_counter() < until - 1:
            job = {"name": "n", "noop": {"seconds": 0}}
            request = encode("POST", "/v1/jobs", api.key, json.dumps(job).encode())
            begun = time.perf_counter()
            status, body = await lane.send(request)
            if status != 201:
                raise RuntimeError(f"{status}: {body.decode()}")
            async with asyncio.timeout(LIMIT):
                credential, attempt_id, at = await self._offered.get()
            self.held.offers.append(at - begun)
            await self._finish(lane, credential, attempt_id)
            await asyncio.sleep(0.1)
        lane.close()

    async def _finish(self, lane: Connection, credential: str, attempt_id: str) -> None:
        path = f"/v1/worker/attempts/{attempt_id}"
        done = {"epoch": 1, "outcome": "succeeded", "last_seq": 0}
        for call, body in (("claim", {}), ("finish", done)):
            request = encode("POST", f"{path}/{call}", credential, json.dumps(body).encode())
            status, answer = await lane.send(request)
            if status >= 300:
                raise RuntimeError(f"{call}: {status}: {answer.decode()}")


async def _some_at_a_time(
    open_one: Callable[[str], Awaitable[Made]], credentials: Sequence[str]
) -> list[Made]:
    made: list[Made] = []
    for start in range(0, len(credentials), TOGETHER):
        part = credentials[start : start + TOGETHER]
        made += await asyncio.gather(*(open_one(each) for each in part))
    return made


async def _reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(TICK_SECONDS)
