"""What an agent costs its host while it waits for work, joined to a controller.

python benchmarks/footprint.py [--quick] [--json PATH]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from report import Goal, Result, report
from served import BIN, Controller

from st_client import Client

MOST_MIB = Goal("at most", 60.0)
"""Resident memory of an idle agent."""
MOST_PERCENT = Goal("at most", 1.0)
"""Of one core, of an idle agent."""
SETTLE_SECONDS = 10.0
JOIN_LIMIT = 60.0


@dataclass(frozen=True)
class Cost:
    """Of one agent, over a while."""

    resident_mib: float
    private_mib: float
    """What would be free without it: without what it shares with other processes."""
    percent: float
    beats: int


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one agent for half a minute")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    agents, seconds = (1, 30.0) if options.quick else (5, 120.0)
    costs = measure(agents, seconds)
    results = [
        of("idle agent, resident", [cost.resident_mib for cost in costs], "MiB", MOST_MIB),
        of("idle agent, not shared", [cost.private_mib for cost in costs], "MiB", None),
        of("idle agent, of one core", [cost.percent for cost in costs], "%", MOST_PERCENT),
        of("heartbeats meanwhile", [float(cost.beats) for cost in costs], "", None),
    ]
    return 0 if report("footprint", results, options.json) else 1


def of(metric: str, runs: list[float], unit: str, goal: Goal | None) -> Result:
    """The median of the agents against its goal."""
    return Result(metric, median(runs), unit, goal, runs)


def measure(agents: int, seconds: float) -> list[Cost]:
    """The cost of each of ``agents``, one after the other beside the same controller."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        controller = Controller(folder, {})
        controller.start()
        try:
            with Client(controller.url) as nobody:
                token = (controller.data / "setup-token").read_text().strip()
                key = nobody.set_up(token, "admin", "correct horse battery").key
            with Client(controller.url, key) as client:
                return [one(client, folder / f"agent-{index}", seconds) for index in range(agents)]
        finally:
            controller.stop()


def one(client: Client, folder: Path, seconds: float) -> Cost:
    """Join an agent at production's pace, let it settle, and look at it for ``seconds``."""
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "st-worker", "join", client.url, "--name", folder.name, "--state-dir", folder],
            env=os.environ | {"ST_JOIN_TOKEN": client.create_join_token().token},
            stdout=log,
            stderr=log,
        )
    try:
        wait_online(client, folder.name)
        time.sleep(SETTLE_SECONDS)
        seen = psutil.Process(process.pid)
        before, heard, begun = used(seen), beats(client, folder.name), time.monotonic()
        count = 0
        while time.monotonic() - begun < seconds:
            time.sleep(1)
            now = beats(client, folder.name)
            count += now != heard
            heard = now
        percent = 100 * (used(seen) - before) / (time.monotonic() - begun)
        memory = seen.memory_full_info()
        return Cost(memory.rss / 2**20, memory.uss / 2**20, percent, count)
    finally:
        process.terminate()
        process.wait(60)


def wait_online(client: Client, name: str) -> None:
    """Return once the controller has heard of the agent."""
    until = time.monotonic() + JOIN_LIMIT
    while not any(each.name == name and each.state == "online" for each in client.workers()):
        if time.monotonic() > until:
            raise TimeoutError(f"{name} was not online within {JOIN_LIMIT:g} s")
        time.sleep(0.1)


def beats(client: Client, name: str) -> object:
    """When the agent was heard last."""
    return client.find_worker(name).last_heartbeat_at


def used(process: psutil.Process) -> float:
    """Processor seconds so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    sys.exit(main())
