"""How many idle workers one controller process holds, and what they cost.

python benchmarks/worker_streams.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

Each worker has joined, holds a real event stream over a connection of its own, and sends a
heartbeat with its usage every 5 seconds, spread evenly; heartbeats share 64 connections. While
they are held: the memory of the controller for each, the processor time that it takes, how late
heartbeats are answered, and how long it takes from the submission of a job until one of the workers
has its offer. ``--quick`` holds 1,000 for 20 s, otherwise 5,000 for two
minutes.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
from report import Goal, Result, report
from served import Api, Controller, arguments, controller, databases
from wire import Connection, EventStream, encode

BEAT_SECONDS = 5.0
LANES = 64
JOINING = 16
"""Workers that join at one time."""
LIMIT = 60.0


@dataclass
class Held:
    """What was seen while the workers were held."""

    beats: list[float] = field(default_factory=list)
    """Seconds until a heartbeat was answered."""
    offers: list[float] = field(default_factory=list)
    """Seconds from a submission until the offer."""
    missed: int = 0
    """Heartbeats that came later than they should by more than a second, or were refused."""
    closed: int = 0
    """Streams that the controller closed."""


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    count, seconds = (1_000, 20.0) if options.quick else (5_000, 120.0)
    results = [
        result for kind in databases(options.database) for result in measure(kind, count, seconds)
    ]
    return 0 if report("worker_streams", results, options.json) else 1


def measure(kind: str, count: int, seconds: float) -> list[Result]:
    """All figures on one kind of database."""
    with controller(kind) as (server, api):
        return asyncio.run(_measure(kind, server, api, count, seconds))


async def _measure(
    kind: str, server: Controller, api: Api, count: int, seconds: float
) -> list[Result]:
    credentials = await _join(server, api, count)
    before = _resident(server)
    fleet = Fleet(server, credentials)
    begun = time.perf_counter()
    await fleet.open()
    opened = time.perf_counter() - begun
    spent = server.cpu_seconds()
    held = await fleet.hold(api, seconds)
    cpu = (server.cpu_seconds() - spent) / seconds
    memory = (_resident(server) - before) / count / 1024
    heard = sum(worker["state"] == "online" for worker in _workers(api))
    await fleet.close()
    name = f"{kind}: {count:,} idle workers"
    return [
        Result(f"{name}: online after {seconds:.0f} s", heard, "", Goal("at least", count)),
        Result(f"{name}: heartbeats late or refused", held.missed, "", Goal("at most", 0)),
        Result(f"{name}: streams closed", held.closed, "", Goal("at most", 0)),
        Result(f"{name}: memory each", memory, "KiB", Goal("at most", 40)),
        Result(f"{name}: share of one core", 100 * cpu, "%", None),
        Result(f"{name}: heartbeat, p99", 1e3 * _p99(held.beats), "ms", None),
        Result(
            f"{name}: submit until offer, p99", 1e3 * _p99(held.offers), "ms", Goal("at most", 100)
        ),
        Result(f"{name}: streams opened", count / opened, "1/s", None),
    ]


class Fleet:
    """Workers that do nothing but listen and say that they are alive."""

    def __init__(self, server: Controller, credentials: list[str]) -> None:
        self._server, self._credentials = server, credentials
        self._streams: list[EventStream] = []
        self._lanes: asyncio.Queue[Connection] = asyncio.Queue()
        self._offered: asyncio.Queue[tuple[str, str, float]] = asyncio.Queue()
        self._held = Held()

    async def open(self) -> None:
        """Connect them all."""
        for _ in range(LANES):
            self._lanes.put_nowait(await Connection.open(self._server.port))
        for start in range(0, len(self._credentials), LANES):
            part = self._credentials[start : start + LANES]
            self._streams += await asyncio.gather(*(self._follow(each) for each in part))

    async def hold(self, api: Api, seconds: float) -> Held:
        """Beat and place a job now and then, for so long."""
        until = time.perf_counter() + seconds
        beating = [
            asyncio.create_task(
                self._beat(each, number * BEAT_SECONDS / len(self._credentials), until)
            )
            for number, each in enumerate(self._credentials)
        ]
        await self._place_jobs(api, until)
        await asyncio.gather(*beating)
        self._held.closed = sum(stream.closed.is_set() for stream in self._streams)
        return self._held

    async def close(self) -> None:
        """End everything."""
        for stream in self._streams:
            stream.close()
        while not self._lanes.empty():
            self._lanes.get_nowait().close()

    async def _follow(self, credential: str) -> EventStream:
        def hear(event: str, body: bytes) -> None:
            if event == "offer":
                offer = json.loads(body)
                self._offered.put_nowait((credential, offer["attempt_id"], time.perf_counter()))

        return await EventStream.open(self._server.port, credential, hear, "/v1/worker/stream")

    async def _beat(self, credential: str, first: float, until: float) -> None:
        usage = {"slots": [{"index": 0, "utilisation": 3.5}], "disk_free_gb": 812.5}
        request = encode(
            "POST", "/v1/worker/heartbeat", credential, json.dumps({"usage": usage}).encode()
        )
        due = time.perf_counter() + first
        while due < until:
            await asyncio.sleep(due - time.perf_counter())
            lane = await self._lanes.get()
            begun = time.perf_counter()
            status, _ = await lane.send(request)
            self._lanes.put_nowait(lane)
            self._held.beats.append(time.perf_counter() - begun)
            self._held.missed += status != 200 or time.perf_counter() - due > 1.0
            due += BEAT_SECONDS

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
            self._held.offers.append(at - begun)
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


async def _join(server: Controller, api: Api, count: int) -> list[str]:
    """Credentials of so many new workers."""
    token = api.call("POST", "/v1/join-tokens", {"expires_in_seconds": 3600, "uses": count})
    credentials: list[str] = [""] * count
    numbers = iter(range(count))

    async def join() -> None:
        lane = await Connection.open(server.port)
        for number in numbers:
            body = json.dumps(_described(number)).encode()
            request = encode("POST", "/v1/worker/register", token["token"], body)
            status, answer = await lane.send(request)
            if status != 200:
                raise RuntimeError(f"{status}: {answer.decode()}")
            credentials[number] = json.loads(answer)["credential"]
        lane.close()

    await asyncio.gather(*(join() for _ in range(JOINING)))
    return credentials


def _described(number: int) -> dict[str, Any]:
    slot = {"index": 0, "accelerator": "NVIDIA H100", "memory_gb": 80.0}
    inventory = {"slots": [slot], "cpus": 8, "memory_gb": 256.0, "disk_free_gb": 1000.0}
    inventory |= {"hostname": f"host{number}", "platform": "linux"}
    return {"name": f"w{number:05}", "agent_version": "benchmark", "inventory": inventory}


def _workers(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call("GET", "/v1/workers")["items"]
    return found


def _resident(server: Controller) -> int:
    assert server.process
    return int(psutil.Process(server.process.pid).memory_info().rss)


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


if __name__ == "__main__":
    sys.exit(main())
