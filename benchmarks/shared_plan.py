"""What `st-train plan` foretells of each of two processes against what each then holds; CPU, gloo.

python benchmarks/shared_plan.py [--quick] [--json PATH]

A LoRA, and full training, of a Stable Diffusion XL of a million weights by every strategy.
Measured: bytes of the storages of what is frozen, what is trained, the optimiser's state (the
masters of ZeRO among them) and the average in each process after two steps, of the rank that is
furthest off. DeepSpeed is needed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import Goal, Result, report
from shared_plan_worker import PARTS, specification
from tiny_sdxl import build_model, make_pictures

from st_trainer.planning.command import in_processes
from st_trainer.planning.estimate import estimate

ERROR = 0.10
"""Most by which a prediction may be wrong."""
PROCESSES = 2
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp2": {"strategy": "fsdp2"},
    "zero-1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero-2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero-3": {"strategy": "deepspeed", "zero_stage": 3},
}
QUICK = ("fsdp2", "zero-2")
WORKER = Path(__file__).with_name("shared_plan_worker.py")


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"only LoRA, {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    cases = [
        {"kind": kind, "strategy": name, "distributed": STRATEGIES[name]}
        for kind in (("lora",) if options.quick else ("lora", "full"))
        for name in (QUICK if options.quick else STRATEGIES)
    ]
    with tempfile.TemporaryDirectory() as name:
        build_model(Path(name) / "model")
        make_pictures(Path(name) / "pictures")
        results = [each for case in cases for each in compared(Path(name), case)]
    return 0 if report("shared_plan", results, options.json) else 1


def compared(root: Path, case: dict[str, Any]) -> list[Result]:
    """Foretold over measured of each part, of the rank that is furthest off."""
    run(root, case)
    found = [json.loads((root / f"rank-{rank}.json").read_text()) for rank in range(PROCESSES)]
    guessed = foretold(root, case)
    results = []
    for part in PARTS:
        pairs = [(guessed[rank][part], found[rank][part]) for rank in range(PROCESSES)]
        guess, held = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
        wrong = abs(guess - held) / max(held, 1)
        name = f"{case['kind']}, {case['strategy']}: {part}, {guess:,} foretold of {held:,}"
        results.append(Result(name, wrong, "off by", Goal("at most", ERROR)))
    return results


def foretold(root: Path, case: dict[str, Any]) -> list[dict[str, int]]:
    """What the plan says of each rank."""
    found = estimate(in_processes(specification(root, case), PROCESSES))
    ranks = {first: (state, average) for first, state, average in found.ranks}
    states = ranks.get(0, (found.optimizer, found.average))
    guessed = []
    for rank in range(PROCESSES):
        states = ranks.get(rank, states)
        own = {"optimizer": states[0], "average": states[1]}
        guessed.append({"base": found.base, "adapter": found.adapter, **own})
    return guessed


def run(root: Path, case: dict[str, Any]) -> None:
    """Train ``case`` in two processes, which write down what they hold."""
    file = root / "case.json"
    file.write_text(json.dumps(case))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(PROCESSES), str(WORKER), str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{case} ended with {ended.returncode}:\n{ended.stderr[-10_000:]}")


if __name__ == "__main__":
    sys.exit(main())
