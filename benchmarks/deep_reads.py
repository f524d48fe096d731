"""What it takes to look at a store that is full: pages, lists and calls of people and pipelines.

python benchmarks/deep_reads.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

100,000 jobs wait, 1,000 run, 200,000 have ended, and there are 5,000 workers (quick: a tenth).
Each call is made of the application in this process as it leads; the median is told, and, once on
its own, how many rows the database looked at and which tables it read from end to end.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from deep_store import Filling, Known, Sizes
from fastapi.testclient import TestClient
from read_plans import Watch
from report import Goal, Result, progress, report
from served import arguments, database, databases

from st_controller.app import create_app
from st_controller.settings import Settings
from st_controller.store import migrate
from st_controller.store.database import Database
from st_shared import logging

QUICK = Sizes(queued=10_000, dependents=200, running=100, ended=20_000, workers=500)
REPEATS = 5
LEAST_WAIT = 600.0
"""Seconds in which the whole queue is read at the latest."""
PATIENCE = 100_000.0
"""Seconds for which workers may be silent: there are none."""
WITHIN = Goal("at most", 100.0)
"""Milliseconds of a call."""
NO_GOAL = {"explain a job that is new", "explain a job in the middle"}
"""The queue is replayed, for half a second at most; for some seconds it serves everybody."""


@dataclass(frozen=True)
class Call:
    """What is asked, and who asks."""

    name: str
    path: str
    who: str = "admin"
    pages: int = 1
    """Of a list so many pages on, in the time of one."""
    method: str = "GET"


def calls(known: Known) -> list[Call]:
    """All that is asked."""
    jobs, middle, array = "/v1/jobs", known.waiting, known.array
    lists = {
        "all": "", "queued": "?state=queued", "running": "?state=running",
        "succeeded": "?state=succeeded", "failed or cancelled": "?state=failed&state=cancelled",
        "awaiting approval": "?state=awaiting_approval", "low": "?priority=low",
        "critical, of which there are none": "?priority=critical",
        "failed, high": "?state=failed&priority=high", "mine": "?mine=true",
        "mine, failed": "?mine=true&state=failed", "of an array": f"?array={array}",
        "of an array, running": f"?array={array}&state=running",
        "500 at a time": "?limit=500",
    }  # fmt: skip
    return [
        *(Call(f"jobs: {name}", jobs + asked) for name, asked in lists.items()),
        *(Call(f"jobs of a lead: {name}", jobs + lists[name], "lead") for name in _OF_OTHERS),
        *(
            Call(f"jobs of a researcher: {name}", jobs + lists[name], "researcher")
            for name in _OF_OTHERS
        ),
        Call("jobs: the 20th page", jobs, pages=20),
        Call("jobs that succeeded: the 20th page", f"{jobs}?state=succeeded", pages=20),
        Call("a job that waits", f"{jobs}/{middle}"),
        Call("a job that runs", f"{jobs}/{known.running}"),
        Call("a job that ended", f"{jobs}/{known.ended}"),
        Call("attempts of a job", f"{jobs}/{known.ended}/attempts"),
        Call("artifacts of a job", f"{jobs}/{known.ended}/artifacts"),
        Call("log of a job", f"{jobs}/{known.ended}/logs"),
        Call("explain a job in the middle", f"{jobs}/{middle}/explain"),
        Call("explain a job that runs", f"{jobs}/{known.running}/explain"),
        Call("the queue", "/v1/queue"),
        Call("the queue, as a researcher sees it", "/v1/queue", "researcher"),
        Call("the rules of the queue", "/v1/queue/policy"),
        Call("arrays", "/v1/job-arrays"),
        Call("arrays of a lead", "/v1/job-arrays", "lead"),
        Call("arrays of a researcher", "/v1/job-arrays", "researcher"),
        Call("an array", f"/v1/job-arrays/{array}"),
        Call("workers", "/v1/workers"),
        Call("workers: the 4th page", "/v1/workers", pages=4),
        Call("a worker", f"/v1/workers/{known.worker}"),
        Call("workers of a name", "/v1/workers?name=host-00007"),
        Call("audit", "/v1/audit"),
        Call("audit: the 20th page", "/v1/audit", pages=20),
        Call("audit of a lead", "/v1/audit", "lead"),
        Call("audit of a job", f"/v1/audit?target={known.ended}"),
        Call("audit of a person", "/v1/audit?actor=user:user-7"),
        Call("audit of an action that nobody took", "/v1/audit?action=user.deleted"),
        Call("audit of the first day", "/v1/audit?until=" + known.first_day),
        Call("usage", "/v1/quotas/usage"),
        Call("usage of all", "/v1/quotas/usage?path=all"),
        Call("quotas", "/v1/quotas"),
        Call("prices", "/v1/prices"),
        Call("approvals", "/v1/approvals"),
        Call("users", "/v1/users"),
        Call("teams", "/v1/teams"),
        Call("datasets", "/v1/datasets"),
        Call("figures for Prometheus", "/metrics"),
        Call("cancel an array", f"/v1/job-arrays/{array}/cancel", method="POST"),
    ]


_OF_OTHERS = ("all", "queued", "failed or cancelled", "failed, high", "mine")


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    logging.configure(level="error", format="json")  # else every request is a line
    sizes = QUICK if options.quick else Sizes()
    results = [result for kind in databases(options.database) for result in measure(kind, sizes)]
    return 0 if report("deep_reads", results, options.json) else 1


def measure(kind: str, sizes: Sizes) -> Iterator[Result]:
    """All calls on one kind of database."""
    with store(kind, sizes) as (client, known):
        watch = Watch(client.app.state.platform.db)  # type: ignore[attr-defined]
        for call in calls(known):
            taken = [
                asked(client, known, call) for _ in range(1 if call.method == "POST" else REPEATS)
            ]
            goal = None if call.name in NO_GOAL else WITHIN
            yield Result(f"{kind}: {call.name}", median(taken), "ms", goal, taken)
            if call.method == "GET":
                watch.begin()
                asked(client, known, call)
                found = watch.end()
                yield Result(f"{kind}: {call.name}: rows looked at", found.rows, "rows", None)
                progress(
                    f"{kind}: {call.name}: {median(taken):.1f} ms, {found.statements} statements,"
                    f" {found.rows:,} rows, whole: {', '.join(sorted(found.whole)) or 'none'}"
                )
            else:
                progress(f"{kind}: {call.name}: {median(taken):.1f} ms")


@contextmanager
def store(kind: str, sizes: Sizes) -> Iterator[tuple[TestClient, Known]]:
    """The application over a full store, once it leads and knows the whole queue."""
    with tempfile.TemporaryDirectory(prefix="st-deep-") as folder, database(kind) as environment:
        url = environment.get("ST_DATABASE_URL")
        settings = Settings(
            data_dir=Path(folder),
            database_url=url,
            auto_migrate=True,
            silent_after_seconds=PATIENCE / 2,
            lease_ttl_seconds=PATIENCE,
        )
        known = filled(settings, sizes)
        app = create_app(settings)
        with TestClient(app, headers={"Sec-Fetch-Site": "same-origin"}) as client:
            queue = app.state.platform.queue
            until = time.monotonic() + LEAST_WAIT
            while not (queue.is_led and queue.is_whole):
                if time.monotonic() > until:
                    raise RuntimeError("the queue was not read in time")
                time.sleep(0.05)
            yield client, known


def filled(settings: Settings, sizes: Sizes) -> Known:
    """Fill a new store."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    db = Database(settings.sqlalchemy_url)
    begun = time.monotonic()
    try:
        migrate.upgrade(db)
        known = Filling(db, sizes).fill()
    finally:
        db.close()
    progress(f"filled in {time.monotonic() - begun:.0f} s")
    return known


def asked(client: TestClient, known: Known, call: Call) -> float:
    """Milliseconds of one call; of a later page, of that page alone."""
    headers = {"Authorization": f"Bearer {known.keys[call.who]}"}
    path, took = call.path, 0.0
    for page in range(call.pages):
        begun = time.perf_counter()
        reply = client.request(call.method, path, headers=headers)
        took = 1000 * (time.perf_counter() - begun)
        if reply.status_code >= 400:
            raise RuntimeError(f"{call.path}: {reply.status_code}: {reply.text[:500]}")
        if page + 1 < call.pages:
            path = following(call.path, reply.json())
    return took


def following(path: str, answer: dict[str, Any]) -> str:
    """The address of the next page."""
    if answer["next_cursor"] is None:
        raise RuntimeError(f"{path}: there are not so many pages: {json.dumps(answer)[:200]}")
    return f"{path}{'&' if '?' in path else '?'}cursor={answer['next_cursor']}"


if __name__ == "__main__":
    sys.exit(main())
