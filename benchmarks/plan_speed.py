"""How long ``st-train plan`` takes for models of published sizes, the start included.

python benchmarks/plan_speed.py [--json PATH]

Each is a LoRA of rank 16 in bf16, planned for a GPU of 24 GB, so most plans include a proposal.
Only configuration files are written, no weights.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from published_sizes import SIZES, write_sizes
from report import Goal, Result, report

MOST = Goal("at most", 20)
"""Seconds of processor time."""
FITS, FITS_NOT = 0, 6


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        results = [_planned(name, Path(folder)) for name in SIZES]
    return report("plan_speed", results, options.json)


def _planned(name: str, folder: Path) -> Result:
    place = folder / name.replace(" ", "-")
    family = write_sizes(name, place)
    (folder / "data").mkdir(exist_ok=True)
    training = {
        "model": {"family": family, "base": str(place)},
        "datasets": [{"path": str(folder / "data")}],
        "steps": 1000,
        "batch_size": 1,
        "precision": "bf16",
        "adapter": {"kind": "lora", "rank": 16},
        "optimizer": {"name": "adamw", "learning_rate": 1e-4},
    }
    job = folder / f"{place.name}.yaml"
    job.write_text(yaml.safe_dump({"name": "plan", "training": training}))
    before = _seconds()
    command = [sys.executable, "-m", "st_trainer", "plan", str(job), "--gpu", "L4-24GB"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (FITS, FITS_NOT):
        raise RuntimeError(f"{name}: {done.stderr}")
    return Result(f"{name}: processor time of a plan", _seconds() - before, "s", MOST)


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
