"""How soon work goes on after the scheduling controller was killed.

python benchmarks/recovery.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

"restart": one controller with 100,000 (quick: 20,000) queued jobs that nothing here can run, and a
line of jobs that a connected worker can. Killed with SIGKILL, started again at once; the clock runs
from the start of the process until the worker is offered a job. "takeover" (PostgreSQL and a Valkey
that both replicas share): the leader is killed while jobs flow through the other replica; the clock
runs from the kill until a worker of that one is offered a job.
"""

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from report import Goal, Result, report
from served import Api, Controller, arguments, controller, database, databases, set_up
from simulated_worker import SimulatedWorker, close, connect, join_many

from st_controller.embedded.valkey import find_server

HOPELESS = {"name": "n", "noop": {"seconds": 0}, "resources": {"accelerator": "none such"}}
SHORT = {"name": "n", "noop": {"seconds": 0.2}}
LINE = 1_000
"""Jobs that wait for the workers, more than are done in a measurement."""
LIMIT = 60.0


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    runs = 1 if options.quick else 5
    chosen = databases(options.database)
    results = [restart(kind, 20_000 if options.quick else 100_000, runs) for kind in chosen]
    if "postgresql" in chosen:
        results.append(takeover(runs))
    return 0 if report("recovery", results, options.json) else 1


def restart(kind: str, depth: int, runs: int) -> Result:
    """One controller, killed and started again."""
    with controller(kind) as (server, api):
        api.submit_many([HOPELESS] * depth)
        found = [
            asyncio.run(_until_next_offer(server, api, _killed_and_started(server)))
            for _ in range(runs)
        ]
    name = f"{kind}: from start to first offer, {depth:,} queued"
    return Result(name, median(found), "s", Goal("at most", 3), found)


def takeover(runs: int) -> Result:
    """Two replicas, of which the leader is killed."""
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="st-bench-")))
        settings = stack.enter_context(database("postgresql"))
        settings |= {"ST_REDIS_URL": stack.enter_context(_valkey(folder))}
        settings |= {"ST_SECRET_KEY": "0123456789abcdef0123456789abcdef"}
        one = Controller(folder, settings, "one")
        stack.callback(one.stop)
        one.start()
        key = set_up(one).key
        for number in range(runs):
            other = Controller(folder, settings, f"other-{number}")
            stack.callback(other.stop)
            other.start()
            _wait(lambda leader=one: '"leading"' in leader.log)
            api = Api(other.url, key)
            found.append(asyncio.run(_until_next_offer(other, api, one.kill)))
            one = other
    name = "postgresql: from the leader's end to the next offer elsewhere"
    return Result(name, median(found), "s", Goal("at most", 5), found)


def _killed_and_started(server: Controller) -> Callable[[], None]:
    def act() -> None:
        server.kill()
        server.launch()

    return act


async def _until_next_offer(server: Controller, api: Api, act: Callable[[], None]) -> float:
    """Seconds from ``act`` until a worker of ``server`` is offered a job, in the midst of work."""
    acted = float("inf")
    flowing, resumed = asyncio.Event(), asyncio.Event()
    offered: list[float] = []

    def note(what: str, _job_id: str, at: float) -> None:
        if what == "finished":
            flowing.set()
        if what == "offer" and at > acted:
            offered.append(at)
            resumed.set()

    workers: list[SimulatedWorker] = join_many(api, server.port, 4, 2, note)
    await connect(workers)
    api.submit_many([SHORT] * LINE)
    async with asyncio.timeout(LIMIT):
        await flowing.wait()
    await asyncio.to_thread(act)
    acted = time.perf_counter()
    async with asyncio.timeout(LIMIT):
        await resumed.wait()
    await close(workers)
    _retire_all(api)
    return offered[0] - acted


def _retire_all(api: Api) -> None:
    for worker in api.call("GET", "/v1/workers?limit=500")["items"]:
        api.call("POST", f"/v1/workers/{worker['id']}/retire")


@contextmanager
def _valkey(folder: Path) -> Iterator[str]:
    """URL of a server that both replicas share."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [find_server(), "--port", str(port), "--dir", folder, "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: _listens(port))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(look: Callable[[], bool]) -> None:
    until = time.monotonic() + LIMIT
    while not look():
        if time.monotonic() > until:
            raise TimeoutError("waited in vain")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
