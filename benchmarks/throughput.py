"""How many jobs pass from submission to their final state, over real HTTP.

python benchmarks/throughput.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

Two loads. "no-op": jobs that take no time, submitted one at a time by 16 clients, through 50
connected workers of 8 slots. "mix": the baseline that Kueue publishes, 15,000 jobs of 30 teams in
5 organisations on 600 slots: each team submits 350 small jobs (1 slot, 0.2 s, one every 0.1 s),
100 medium ones (5 slots, 0.5 s, every 0.5 s) and 50 large ones (20 slots, 1 s, every 1.2 s), larger
ones in a higher class; an organisation may hold 120 slots, so teams lend to their siblings alone.
``--quick`` takes a tenth of the mix's jobs.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from report import Goal, Result, report
from served import Api, Controller, arguments, controller, databases
from simulated_worker import close, connect, join_many
from tenants import add_teams
from wire import Connection, encode

CLIENTS = 16
PATIENCE = 600.0
ORGS, TEAMS = 5, 6


@dataclass(frozen=True)
class Kind:
    """One size of job of the mix."""

    name: str
    priority: str
    count: int
    slots: int
    seconds: float
    every: float
    """Seconds between two submissions of a team."""


MIX = (
    Kind("small", "low", 350, 1, 0.2, 0.1),
    Kind("medium", "normal", 100, 5, 0.5, 0.5),
    Kind("large", "high", 50, 20, 1.0, 1.2),
)


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    results: list[Result] = []
    for kind in databases(options.database):
        results += no_ops(kind, options.quick)
        results += mix(kind, options.quick)
    return 0 if report("throughput", results, options.json) else 1


class Ledger:
    """When what happened to which job, as the workers saw it."""

    def __init__(self) -> None:
        self.times: dict[str, dict[str, float]] = defaultdict(dict)
        self.finished = 0
        self.late = 0
        """Offers that ran out before their claim arrived, and were made again."""
        self._wanted = 0
        self._done = asyncio.Event()

    def note(self, what: str, job_id: str, at: float) -> None:
        """Take a note of a worker."""
        self.times[job_id][what] = at
        if what == "finished":
            self.finished += 1
            if self.finished == self._wanted:
                self._done.set()

    async def wait(self, count: int) -> None:
        """Return once so many jobs have finished."""
        self._wanted = count
        if self.finished < count:
            async with asyncio.timeout(PATIENCE):
                await self._done.wait()


def no_ops(database: str, quick: bool) -> list[Result]:
    """Jobs that take no time."""
    count = 2_000 if quick else 15_000
    with controller(database) as (server, api):
        spent = server.cpu_seconds()
        seconds, late = asyncio.run(_no_ops(server, api, count))
        cpu = (server.cpu_seconds() - spent) / count * 1000
        _all_succeeded(api, count)
    return [
        Result(f"{database}: no-op jobs/s", count / seconds, "jobs/s", Goal("at least", 300)),
        Result(f"{database}: processor time of the controller a job", cpu, "ms", None),
        Result(f"{database}: no-op offers made again", late, "offers", None),
    ]


async def _no_ops(server: Controller, api: Api, count: int) -> tuple[float, int]:
    ledger = Ledger()
    request = encode("POST", "/v1/jobs", api.key, b'{"name": "n", "noop": {"seconds": 0}}')
    async with _workers(server, api, ledger, 50, 8):
        begun = time.perf_counter()
        left = iter(range(count))
        connections = [await Connection.open(server.port) for _ in range(CLIENTS)]

        async def client(connection: Connection) -> None:
            for _ in left:
                _made(await connection.send(request))

        await asyncio.gather(*(client(connection) for connection in connections))
        await ledger.wait(count)
        took = time.perf_counter() - begun
        for connection in connections:
            connection.close()
    return took, ledger.late


def mix(database: str, quick: bool) -> list[Result]:
    """Kueue's baseline."""
    share = 0.1 if quick else 1.0
    with controller(database) as (server, api):
        keys = add_teams(server, ORGS, TEAMS)
        for org in range(ORGS):
            api.call("PUT", f"/v1/queue/shares/org-{org}", {"max_slots": 20 * TEAMS})
        seconds, waits, late = asyncio.run(_mix(server, api, keys, share))
        total = sum(len(each) for each in waits.values())
        _all_succeeded(api, total)
    mean = {name: sum(each) / len(each) for name, each in waits.items()}
    order = mean["large"] < mean["medium"] < mean["small"]
    return [
        Result(f"{database}: mix of {total:,} jobs", seconds, "s", Goal("at most", 180)),
        *(Result(f"{database}: mean wait, {name}", mean[name], "s", None) for name in mean),
        Result(f"{database}: mix: offers made again", late, "offers", None),
        Result(f"{database}: large before medium before small", order, "", Goal("at least", 1)),
    ]


async def _mix(
    server: Controller, api: Api, keys: list[str], share: float
) -> tuple[float, dict[str, list[float]], int]:
    """Seconds until all were done, how long the jobs of each kind waited, offers made again."""
    ledger = Ledger()
    kinds: dict[str, Kind] = {}
    submitted: dict[str, float] = {}

    async def stream(key: str, kind: Kind) -> None:
        body = {
            "name": kind.name,
            "priority": kind.priority,
            "noop": {"seconds": kind.seconds},
            "resources": {"slots": kind.slots},
        }
        request = encode("POST", "/v1/jobs", key, json.dumps(body).encode())
        connection = await Connection.open(server.port)
        for number in range(round(kind.count * share)):
            await asyncio.sleep(begun + number * kind.every - time.perf_counter())
            before = time.perf_counter()
            job_id = _made(await connection.send(request))
            submitted[job_id], kinds[job_id] = before, kind
        connection.close()

    async with _workers(server, api, ledger, ORGS * TEAMS, 20):
        begun = time.perf_counter()
        await asyncio.gather(*(stream(key, kind) for key in keys for kind in MIX))
        await ledger.wait(len(submitted))
        took = time.perf_counter() - begun
    waits: dict[str, list[float]] = defaultdict(list)
    for job_id, kind in kinds.items():
        waits[kind.name].append(ledger.times[job_id]["claimed"] - submitted[job_id])
    return took, waits, ledger.late


@asynccontextmanager
async def _workers(
    server: Controller, api: Api, ledger: Ledger, count: int, slots: int
) -> AsyncIterator[None]:
    workers = join_many(api, server.port, count, slots, ledger.note)
    await connect(workers)
    try:
        yield
    finally:
        ledger.late = await close(workers)


def _made(answer: tuple[int, bytes]) -> str:
    status, body = answer
    if status != 201:
        raise RuntimeError(f"{status}: {body.decode()}")
    job_id: str = json.loads(body)["id"]
    return job_id


def _all_succeeded(api: Api, count: int) -> None:
    """The controller agrees that so many jobs ran."""
    found, cursor = 0, ""
    while cursor is not None:
        page = api.call("GET", f"/v1/jobs?state=succeeded&limit=200&cursor={cursor}".rstrip("="))
        found += len(page["items"])
        cursor = page["next_cursor"]
    if found != count:
        raise RuntimeError(f"{found} of {count} jobs succeeded")


if __name__ == "__main__":
    sys.exit(main())
