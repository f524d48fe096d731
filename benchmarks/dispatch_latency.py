"""How soon an idle worker hears of a job that was submitted, and has claimed it.

python benchmarks/dispatch_latency.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

One job at a time over real HTTP: the clock starts before ``POST /v1/jobs`` is sent and stops when
the offer arrives on the worker's event stream, and again when its claim was answered. Measured on
an empty queue and with 100,000 (quick: 20,000) jobs queued that no worker here can run.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict

from report import Goal, Result, report
from served import Api, Controller, arguments, controller, databases
from simulated_worker import SimulatedWorker, close, connect, join_many
from wire import Connection, encode

JOB = {"name": "n", "noop": {"seconds": 0}}
HOPELESS = {**JOB, "resources": {"accelerator": "none such"}}
GOALS = {("offer", 50): 12.0, ("offer", 99): 40.0, ("claimed", 50): 20.0, ("claimed", 99): 60.0}
WATCHED = ("offer", "claimed")
LIMIT = 30.0
"""Seconds after which a job is given up."""


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    results = [
        result for kind in databases(options.database) for result in measure(kind, options.quick)
    ]
    return 0 if report("dispatch_latency", results, options.json) else 1


def measure(kind: str, quick: bool) -> list[Result]:
    """All figures on one kind of database."""
    jobs, depth = (200, 20_000) if quick else (1000, 100_000)
    with controller(kind) as (server, api):
        idle = asyncio.run(latencies(server, api, jobs, "a"))
        api.submit_many([HOPELESS] * depth)
        deep = asyncio.run(latencies(server, api, jobs, "b"))
    results = []
    for (what, percent), limit in GOALS.items():
        empty, full = (quantile(found[what], percent) for found in (idle, deep))
        name = f"{kind}: submit until {what}, p{percent}"
        results += [
            Result(name, empty, "ms", Goal("at most", limit)),
            Result(f"{name}, {depth:,} queued", full, "ms", None),
            Result(f"{name}, by that with none", full / empty, "", Goal("at most", 1.5)),
        ]
    return results


async def latencies(server: Controller, api: Api, jobs: int, name: str) -> dict[str, list[float]]:
    """Milliseconds from each submission until its offer and until its claim."""
    times: dict[str, dict[str, float]] = defaultdict(dict)
    finished: asyncio.Queue[str] = asyncio.Queue()

    def note(what: str, job_id: str, at: float) -> None:
        times[job_id][what] = at
        if what == "finished":
            finished.put_nowait(job_id)

    workers: list[SimulatedWorker] = join_many(api, server.port, 1, 1, note)
    await connect(workers)
    client = await Connection.open(server.port)
    request = encode("POST", "/v1/jobs", api.key, json.dumps({**JOB, "name": name}).encode())
    for _ in range(20 + jobs):
        begun = time.perf_counter()
        status, body = await client.send(request)
        if status != 201:
            raise RuntimeError(f"{status}: {body.decode()}")
        job_id = json.loads(body)["id"]
        times[job_id]["begun"] = begun
        async with asyncio.timeout(LIMIT):
            while await finished.get() != job_id:
                pass
    client.close()
    await close(workers)
    api.call("POST", f"/v1/workers/{_worker_id(api)}/retire")
    warm = list(times.values())[20:]
    return {what: [(each[what] - each["begun"]) * 1000 for each in warm] for what in WATCHED}


def _worker_id(api: Api) -> str:
    (worker,) = api.call("GET", "/v1/workers")["items"]
    worker_id: str = worker["id"]
    return worker_id


def quantile(values: list[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


if __name__ == "__main__":
    sys.exit(main())
