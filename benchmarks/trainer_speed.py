"""How soon the trainer makes its first step and how many it makes: a LoRA of a tiny SDXL, CPU.

python benchmarks/trainer_speed.py [--quick] [--json PATH]

The UNet has a million weights; rank 4, 128 pixels, batch 1, everything else as it is by default.
The model and the libraries are in the cache of the operating system. One thread; the speed of a run
is the median over its stretches of ten steps, so that a neighbour's burst does not decide it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from report import Goal, Result, report
from tiny_sdxl import PIXELS, build_model, make_pictures

COMMAND = Path(sys.executable).parent / "st-train"
STRETCH = 10
"""Steps that are timed together."""
PEER = 2.8
"""Steps a second of the trainer that we are compared with, made to run on the same model."""


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three runs of each, not five")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    runs, steps = (3, 60) if options.quick else (5, 200)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = build_model(folder / "model")
        make_pictures(folder / "pictures")
        train(folder, "warm", 1)
        found = [train(folder, f"run-{index}", steps) for index in range(runs)]
    starts, speeds = ([each[part] for each in found] for part in range(2))
    helps = [timed([str(COMMAND), "--help"]) for _ in range(runs)]
    results = [
        Result("weights of the UNet", weights, "", None),
        at_most("st-train run to the first step", starts, 15.0),
        at_most("st-train --help", helps, 0.5),
        Result("LoRA, steps a second", median(speeds), "1/s", Goal("at least", 2 * PEER), speeds),
    ]
    return 0 if report("trainer_speed", results, options.json) else 1


def at_most(metric: str, seconds: list[float], limit: float) -> Result:
    """The median of ``seconds`` against a limit."""
    return Result(metric, median(seconds), "s", Goal("at most", limit), seconds)


def train(folder: Path, name: str, steps: int) -> tuple[float, float]:
    """One run; seconds to the first step, and steps a second after it."""
    job = folder / "job.yaml"
    job.write_text(json.dumps({"name": "speed", "training": specification(folder, steps)}))
    begun = time.time()
    command = [COMMAND, "run", job, "--run-dir", folder / name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    lines = (folder / name / "journal.ndjson").read_bytes().splitlines()
    metrics = [event for event in map(json.loads, lines) if event["kind"] == "metric"]
    times = [seconds(event) for event in metrics]
    stretches = [STRETCH / (b - a) for a, b in pairwise(times[::STRETCH])]
    return times[0] - begun, median(stretches) if stretches else 0.0


def specification(folder: Path, steps: int) -> dict[str, Any]:
    """A LoRA of rank 4; JSON is YAML too."""
    return {
        "model": {
            "family": "sdxl",
            "base": str(folder / "model"),
            "config": {"resolution": PIXELS},
        },
        "datasets": [{"path": str(folder / "pictures")}],
        "steps": steps,
        "batch_size": 1,
        "log_every": 1,
        "adapter": {"rank": 4},
    }


def seconds(event: dict[str, Any]) -> float:
    """When ``event`` was written, since the epoch."""
    return datetime.fromisoformat(event["at"]).timestamp()


def timed(command: list[str]) -> float:
    """Seconds of a whole command."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
