"""How fast jobs are taken in over HTTP, one at a time by 16 clients and a thousand at a time.

python benchmarks/submit.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

No worker is connected, so every job stays queued; the scheduler of the same process looks at each.
"flat" compares the rate with 100,000 (quick: 20,000) jobs queued to that with an empty queue.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass

from report import Goal, Result, report
from served import Api, Controller, arguments, controller, databases
from wire import Connection, encode

CLIENTS = 16
RATES = {"sqlite": 420.0, "postgresql": 600.0}
JOB = {"name": "n", "noop": {"seconds": 0}, "resources": {"accelerator": "none such"}}


@dataclass(frozen=True)
class Taken:
    """What was measured while jobs were taken in."""

    per_second: float
    p50: float
    p99: float
    cpu: float
    """Processor time of the controller a job, all its threads, ms."""


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    results = [
        result for kind in databases(options.database) for result in measure(kind, options.quick)
    ]
    return 0 if report("submit", results, options.json) else 1


def measure(kind: str, quick: bool) -> list[Result]:
    """All figures on one kind of database."""
    seconds, depth = (4.0, 20_000) if quick else (15.0, 100_000)
    with controller(kind) as (server, api):
        asyncio.run(take_in(server, api, 2.0))  # pools, caches and the interpreter get warm
        empty = asyncio.run(take_in(server, api, seconds))
        rates = [batch_rate(api) for _ in range(5 if quick else 20)]
        api.submit_many([JOB] * (depth - int(empty.per_second * seconds) - 1000 * len(rates)))
        full = asyncio.run(take_in(server, api, seconds))
    return [
        Result(f"{kind}: jobs/s, {CLIENTS} clients", empty.per_second, "jobs/s", least(kind)),
        Result(f"{kind}: p50", empty.p50 * 1000, "ms", None),
        Result(f"{kind}: p99", empty.p99 * 1000, "ms", Goal("at most", 100)),
        Result(f"{kind}: processor time of the controller a job", empty.cpu, "ms", None),
        Result(f"{kind}: jobs/s with {depth:,} queued", full.per_second, "jobs/s", least(kind)),
        Result(f"{kind}: p99 with {depth:,} queued", full.p99 * 1000, "ms", Goal("at most", 100)),
        Result(
            f"{kind}: rate with {depth:,} queued by rate with none",
            full.per_second / empty.per_second,
            "",
            Goal("at least", 0.9),
        ),
        Result(
            f"{kind}: jobs/s in batches of 1,000",
            sorted(rates)[len(rates) // 2],
            "jobs/s",
            Goal("at least", 5000),
            rates,
        ),
    ]


def least(kind: str) -> Goal:
    """The rate to be reached."""
    return Goal("at least", RATES[kind])


async def take_in(server: Controller, api: Api, seconds: float) -> Taken:
    """Submit from all clients for so long, each its next job once the last was answered."""
    request = encode("POST", "/v1/jobs", api.key, json.dumps(JOB).encode())
    connections = [await Connection.open(server.port) for _ in range(CLIENTS)]
    spent = server.cpu_seconds()
    begun = time.perf_counter()
    times: list[float] = []

    async def client(connection: Connection) -> None:
        while (before := time.perf_counter()) < begun + seconds:
            status, body = await connection.send(request)
            if status != 201:
                raise RuntimeError(f"{status}: {body.decode()}")
            times.append(time.perf_counter() - before)

    await asyncio.gather(*(client(connection) for connection in connections))
    took = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    times.sort()
    return Taken(
        per_second=len(times) / took,
        p50=times[len(times) // 2],
        p99=times[len(times) * 99 // 100],
        cpu=(server.cpu_seconds() - spent) / len(times) * 1000,
    )


def batch_rate(api: Api) -> float:
    """Jobs a second in one request of a thousand."""
    begun = time.perf_counter()
    api.submit_many([JOB] * 1000)
    return 1000 / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(main())
