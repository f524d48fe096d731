"""What the rules cost a submission: the same jobs into two databases, one of which has rules.

python benchmarks/policy_overhead.py [--quick] [--json PATH]

Both have 200 teams and 5,000 users; one has 1,000 rules: of resources, approvals, quotas, prices.
Jobs are submitted by turns here and there, each in a transaction of its own, as requests to the
application and past it; what counts is processor time. Requests have the goal.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median

from policy_world import ORGS, RULES, TEAMS, USERS, World
from report import Goal, Result, report

from st_controller.services.policy import book
from st_shared import logging

MOST_PERCENT = Goal("at most", 30.0)
"""Of the time of a submission where there are no rules."""
JOB = {
    "name": "digits",
    "resources": {"accelerator": "a100*|h100*", "slots": 2},
    "time_limit": "6h",
    "training": {
        "model": {"family": "pixel_dit"},
        "datasets": [{"path": "/data/public/digits"}],
        "steps": 1000,
    },
}


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer submissions")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    logging.configure(level="warning", format="json")  # else every request is a line
    rounds, jobs = (5, 60) if options.quick else (5, 1000)
    with tempfile.TemporaryDirectory() as name:
        free, ruled = World(Path(name) / "free", rules=0), World(Path(name) / "ruled", rules=RULES)
        requests = list(asyncio.run(measure_requests(free, ruled, rounds, jobs)))
        runs = list(measure(free, ruled, rounds, jobs))
        anew = [reading(ruled) for _ in range(rounds)]
        waits = ruled.waiting()
        free.close()
        ruled.close()
    what = f"{RULES:,} rules, {ORGS * TEAMS} teams, {USERS:,} users"
    results = [
        of("request without rules", [1e3 * bare for bare, _ in requests], "ms", None),
        of(f"request with {what}", [1e3 * full for _, full in requests], "ms", None),
        of("overhead of the policy pass", over(requests), "%", MOST_PERCENT),
        of("transaction alone, without rules", [1e3 * bare for bare, _ in runs], "ms", None),
        of("overhead over the transaction alone", over(runs), "%", None),
        of("reading all rules after a change, once a process", anew, "ms", None),
        of("part of the jobs that wait for approval", [100 * waits], "%", None),
    ]
    return 0 if report("policy_overhead", results, options.json) else 1


def of(metric: str, runs: Sequence[float], unit: str, goal: Goal | None) -> Result:
    """The median of the runs against its goal."""
    return Result(metric, median(runs), unit, goal, runs)


def over(runs: Sequence[tuple[float, float]]) -> list[float]:
    """Percent that the second took longer than the first."""
    return [100 * (full / bare - 1) for bare, full in runs]


async def measure_requests(
    free: World, ruled: World, rounds: int, jobs: int
) -> list[tuple[float, float]]:
    """Processor seconds of a request without and with rules, for each round."""
    random, body, found = Random(0), json.dumps(JOB).encode(), []
    for number in range(20):
        await free.post(number, body)
        await ruled.post(number, body)
    for _ in range(rounds):
        spent = {free: 0.0, ruled: 0.0}
        for turn in range(jobs):
            number = random.randrange(USERS)
            for world in (free, ruled) if turn % 2 else (ruled, free):
                world.key(number)
                begun = time.process_time()
                await world.post(number, body)
                spent[world] += time.process_time() - begun
        found.append((spent[free] / jobs, spent[ruled] / jobs))
    return found


def measure(free: World, ruled: World, rounds: int, jobs: int) -> Iterator[tuple[float, float]]:
    """Processor seconds of a submission without and with rules, for each round."""
    random = Random(0)
    for _ in range(rounds):
        spent = {free: 0.0, ruled: 0.0}
        for turn in range(jobs):
            number = random.randrange(USERS)
            for world in (free, ruled) if turn % 2 else (ruled, free):
                actor = world.actor(number)
                begun = time.thread_time()
                world.submit_as(actor, JOB)
                spent[world] += time.thread_time() - begun
        yield spent[free] / jobs, spent[ruled] / jobs


def reading(world: World) -> float:
    """Milliseconds that one process needs for the rules of a version that it does not know."""
    with world.db.write() as tx:
        book.changed(tx)
    with world.db.read() as session:
        begun = time.thread_time()
        book.current(session)
        return 1e3 * (time.thread_time() - begun)


if __name__ == "__main__":
    sys.exit(main())
