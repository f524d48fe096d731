"""How many idle workers one controller process holds, and what they cost.

python benchmarks/worker_streams.py [--quick] [--json PATH] [--database sqlite|postgresql|both]
                                    [--workers N] [--seconds S]

Each worker has joined, holds a real event stream, and sends a heartbeat with its usage every 5
seconds over a second connection; heartbeats are spread evenly. While they are held: the memory of
the controller for each, with all that it knows of it; the processor time that it takes; how late
heartbeats are answered; and how long it takes from the submission of a job until one of the workers
has its offer, and from an order to all workers until one has that. ``--quick`` holds 1,000 for
20 s, otherwise 5,000 for two minutes.

Processor time and memory are those of the controller's process alone, so they are what they are
beside other work, too; the times are not.
"""

import asyncio
import json
import sys
import time
from typing import Any

import psutil
import uvloop
from idle_fleet import BEAT_SECONDS, Fleet
from report import Goal, Result, report
from served import Api, Controller, arguments, controller, databases
from wire import Connection, encode

JOINING = 16
"""Workers that join at one time."""


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = arguments(__doc__)
    parser.add_argument("--workers", type=int, help="how many, instead of 5,000 or 1,000")
    parser.add_argument("--seconds", type=float, help="how long, instead of 120 or 20")
    options = parser.parse_args()
    count, seconds = (1_000, 20.0) if options.quick else (5_000, 120.0)
    count, seconds = options.workers or count, options.seconds or seconds
    results = [
        result for kind in databases(options.database) for result in measure(kind, count, seconds)
    ]
    return 0 if report("worker_streams", results, options.json) else 1


def measure(kind: str, count: int, seconds: float) -> list[Result]:
    """All figures on one kind of database."""
    with controller(kind) as (server, api):
        return uvloop.run(_measure(kind, server, api, count, seconds))


async def _measure(
    kind: str, server: Controller, api: Api, count: int, seconds: float
) -> list[Result]:
    alone = _resident(server)
    credentials = await _join(server, api, count)
    joined = _resident(server)
    fleet = Fleet(server, credentials)
    begun = time.perf_counter()
    await fleet.open()
    opened = time.perf_counter() - begun
    spent, own = server.cpu_seconds(), time.process_time()
    held = await fleet.hold(api, seconds)
    cpu, own = server.cpu_seconds() - spent, time.process_time() - own
    resident = _resident(server)
    heard = sum(worker["state"] == "online" for worker in _workers(api))
    fleet.close()
    beats = count * (seconds - 1) / BEAT_SECONDS
    name = f"{kind}: {count:,} idle workers"
    return [
        Result(f"{name}: online after {seconds:.0f} s", heard, "", Goal("at least", count)),
        Result(f"{name}: heartbeats", len(held.beats), "", Goal("at least", int(beats))),
        Result(f"{name}: heartbeats late or refused", held.missed, "", Goal("at most", 0)),
        Result(f"{name}: connections closed", held.closed, "", Goal("at most", 0)),
        Result(f"{name}: memory each", _each(resident - alone, count), "kB", Goal("at most", 40)),
        Result(f"{name}: of that, connections", _each(resident - joined, count), "kB", None),
        Result(f"{name}: share of one core", 100 * cpu / seconds, "%", None),
        Result(f"{name}: that, per heartbeat", 1e3 * cpu / len(held.beats), "ms", None),
        Result(f"{name}: heartbeat, p99", 1e3 * _p99(held.beats), "ms", None),
        Result(
            f"{name}: submit until offer, p99", 1e3 * _p99(held.offers), "ms", Goal("at most", 100)
        ),
        Result(f"{name}: order to all, p99", 1e3 * _p99(held.orders), "ms", Goal("at most", 1000)),
        Result(
            f"{name}: of orders to all, not heard",
            count * held.given - len(held.orders),
            "",
            Goal("at most", 0),
        ),
        Result(f"{name}: opened, with a first beat", count / opened, "1/s", None),
        Result(f"{name}: share of one core, of this script", 100 * own / seconds, "%", None),
    ]


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
    found: list[dict[str, Any]] = []
    place = ""
    while True:
        page = api.call("GET", f"/v1/workers?limit=500{place}")
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        place = f"&cursor={page['next_cursor']}"


def _resident(server: Controller) -> int:
    assert server.process
    return int(psutil.Process(server.process.pid).memory_info().rss)


def _each(size: int, count: int) -> float:
    return size / count / 1000


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


if __name__ == "__main__":
    sys.exit(main())
