"""How soon things are there and what they weigh: controller, commands.

python benchmarks/startup.py [--quick] [--json PATH]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx
import psutil
from report import Goal, Result, report

BIN = Path(sys.executable).parent
READY_LIMIT = 60.0


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three runs of each, not five")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    runs = 3 if options.quick else 5
    starts = [start_controller() for _ in range(runs)]
    results = [
        of("st-controller serve to ready, new data", [each[0] for each in starts], "s", 3.0),
        of("st-controller serve to ready, existing data", [each[1] for each in starts], "s", 3.0),
        of("controller idle, resident", [each[2] for each in starts], "MiB", 150.0),
        of("its Valkey, resident", [each[3] for each in starts], "MiB", None),
    ]
    for command, limit in (
        (["st", "--help"], 0.3),
        (["st-controller", "--help"], 0.5),
        (["st-worker", "--help"], 0.5),
        (["st-train", "--help"], 0.5),
    ):
        seconds = [timed(command) for _ in range(runs)]
        results.append(of(" ".join(command), seconds, "s", limit))
    return 0 if report("startup", results, options.json) else 1


def of(metric: str, runs: list[float], unit: str, limit: float | None) -> Result:
    """The median of the runs against a limit."""
    goal = Goal("at most", limit) if limit else None
    return Result(metric, median(runs), unit, goal, runs)


def timed(command: list[str]) -> float:
    """Seconds of a whole command."""
    begun = time.perf_counter()
    subprocess.run([BIN / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def start_controller() -> tuple[float, float, float, float]:
    """Seconds to ready on new and on existing data; MiB of the controller and of its Valkey."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        fresh, _ = serve(data, lambda _: (0.0, 0.0))
        again, weights = serve(data, weigh)
    return fresh, again, *weights


def serve(
    data: Path, look: Callable[[psutil.Process], tuple[float, float]]
) -> tuple[float, tuple[float, float]]:
    """Start a controller, wait until it is ready, look at it, stop it."""
    (data / "controller.json").unlink(missing_ok=True)
    begun = time.perf_counter()
    process = subprocess.Popen(
        [BIN / "st-controller", "serve", "--data", data, "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(data / "controller.json", begun)
        seconds = time.perf_counter() - begun
        return seconds, look(psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(file: Path, begun: float) -> None:
    """Return once the controller says that it is ready."""
    while time.perf_counter() - begun < READY_LIMIT:
        if file.exists():
            url = json.loads(file.read_bytes())["url"]
            if httpx.get(f"{url}/readyz").is_success:
                return
        time.sleep(0.01)
    raise TimeoutError(f"the controller was not ready within {READY_LIMIT:g} s")


def weigh(process: psutil.Process) -> tuple[float, float]:
    """Resident MiB of the controller and of its children, after it has settled."""
    time.sleep(3)
    children = sum(child.memory_info().rss for child in process.children(recursive=True))
    return process.memory_info().rss / 2**20, children / 2**20


if __name__ == "__main__":
    sys.exit(main())
