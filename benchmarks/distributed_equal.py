"""Two processes learn what one learns, whatever is spread over them; and they go on from anything.

Every case is trained on 2 processes (gloo, CPU) with half the batch, and compared with one process:
losses, held-out losses, final weights, the average, the optimiser's state. One launch carries all
of them out. DeepSpeed must be installed (``pip install -e '.[deepspeed]'``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from report import Goal, Result, report
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

WORKER = Path(__file__).with_name("distributed_cases.py")
EQUAL = Goal("at most", 1e-5)
EXACT = Goal("at most", 0)
ROUNDED = Goal("at most", 2e-3)
"""In bfloat16, which halves of a batch are rounded in another order."""
DIFFERENT = Goal("at least", 1e-4)
TOGETHER = Goal("at least", 1)
STEPS, STOPPED = 6, 3

Document = dict[str, Any]

ZERO3 = {
    "strategy": "deepspeed",
    "zero_stage": 3,
    "options": {"stage3_param_persistence_threshold": 20},
}
STRATEGIES: dict[str, Document] = {
    "ddp": {"processes": 2},
    "fsdp2": {"strategy": "fsdp2"},
    "zero-1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero-2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero-3": ZERO3,
    "fsdp2, kept": {"strategy": "fsdp2", "reshard_after_forward": False},
    "fsdp2, offloaded": {"strategy": "fsdp2", "offload_parameters": "cpu"},
    "zero-2, offloaded": {"strategy": "deepspeed", "zero_stage": 2, "offload_optimizer": "cpu"},
    "zero-3, offloaded": {**ZERO3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
    "zero-3, small ones kept": {"strategy": "deepspeed", "zero_stage": 3},
    "context parallel": {"context_parallel": 2},
    "context parallel, fsdp2": {"strategy": "fsdp2", "context_parallel": 2},
}
MAIN = ("ddp", "fsdp2", "zero-1", "zero-2", "zero-3")
OTHERS = tuple(name for name in STRATEGIES if "," in name and "context" not in name)
BF16 = {"precision": "bf16"}
PARTS = {"accumulation": 2}
ANEW = {"memory": {"gradient_checkpointing": 1}}


@dataclass(frozen=True)
class Comparison:
    """What is trained, by which strategies, and how close it has to come."""

    kind: str
    strategies: tuple[str, ...]
    goal: Goal = EQUAL
    changes: Document = field(default_factory=dict)


COMPARISONS = {
    "full": Comparison("full", MAIN),
    "lora": Comparison("lora", (*MAIN, *OTHERS)),
    "lycoris": Comparison("lycoris", MAIN),
    "controlnet": Comparison("controlnet", ("fsdp2", "zero-2", "zero-3")),
    "lora with text encoder": Comparison("text", ("zero-1", "zero-2")),
    "lora by tokens": Comparison("flux", ("context parallel", "context parallel, fsdp2")),
    "full, added up": Comparison(
        "full", ("ddp", "fsdp2", "zero-1", "zero-2", "zero-3"), EQUAL, PARTS
    ),
    "full, computed anew": Comparison("full", ("fsdp2", "zero-3"), EQUAL, ANEW),
    "lora, computed anew": Comparison("lora", ("fsdp2", "zero-3"), EQUAL, ANEW),
    "lora, bf16": Comparison("lora", ("fsdp2", "zero-2", "zero-3"), ROUNDED, BF16),
}
GOES_ON = ("fsdp2", "zero-1", "zero-2", "zero-3")
"""Stopped and gone on with: bit for bit as if it had not been stopped."""
CHANGES = (("ddp", "fsdp2"), ("fsdp2", "zero-3"), ("zero-3", "zero-2"), ("zero-2", "ddp"))
"""Stopped under one, gone on with under the other."""


class Trials:
    """Folders, specifications and launches."""

    def __init__(self, root: Path) -> None:
        from fixtures.tiny import TINY  # noqa: PLC0415 -- on the path by now

        self.root = root
        self.squares = root / "squares"
        self.squares.mkdir()
        for index in range(7):
            Image.new("L", (4, 4), 30 * index).save(self.squares / f"{index}.png")
            shade = "dark" if index < 4 else "bright"
            (self.squares / f"{index}.txt").write_text(f"shade {shade}\n")
        for family in ("sd1", "sd3", "flux"):
            TINY[family].build(root / family)

    def spec(self, kind: str, strategy: str, batch: int, changes: Document) -> Document:
        """What is trained for six steps, with everything that has to work under any strategy."""
        return {
            "datasets": [
                {"path": str(self.squares)},
                {"path": str(self.squares), "evaluation": True},
            ],
            "steps": STEPS,
            "batch_size": batch,
            "seed": 5,
            "log_every": 1,
            "checkpoint": {"every": STOPPED, "keep_last": 5},
            "validation": {"prompts": ["shade dark"], "every": STOPPED, "sampler_steps": 2},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "distributed": STRATEGIES[strategy] if strategy else {},
            **self._kind(kind),
            **changes,
        }

    def _kind(self, kind: str) -> Document:
        if kind == "full":
            config = {"image_size": 4, "width": 16, "depth": 2, "heads": 2, "caption_length": 3}
            return {"model": {"family": "pixel_dit", "config": config}}
        family = {"flux": "flux", "text": "sd1"}.get(kind, "sd3")
        model = {"family": family, "base": str(self.root / family), "config": {"resolution": 16}}
        lora = {"kind": "lora", "rank": 2}
        adapters: dict[str, Document] = {
            "lora": lora,
            "flux": lora,
            "text": {**lora, "text_encoder": True},
            "lycoris": {"kind": "lycoris", "rank": 2, "lycoris": {"algorithm": "lokr"}},
            "controlnet": {"kind": "controlnet"},
        }
        found: Document = {"model": model, "adapter": adapters[kind]}
        if kind == "controlnet":
            read = {"path": str(self.squares), "conditioning": str(self.squares)}
            found["datasets"] = [read, {**read, "evaluation": True}]
            found["validation"] = {"every": STOPPED}
        return found

    def launch(self, cases: list[Document], processes: int) -> None:
        """Carry ``cases`` out, one after the other, in ``processes`` processes."""
        file = self.root / f"cases-{processes}.json"
        file.write_text(json.dumps(cases))
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc_per_node", str(processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        log = self.root / f"log-{processes}.txt"
        with log.open("a") as output:
            ended = subprocess.run(  # noqa: PLW1510 -- its end is told with its log
                [*command, str(WORKER), str(file)], env=environment, stdout=output, stderr=output
            )
        if ended.returncode:
            sys.exit(
                f"{processes} processes ended with {ended.returncode}:\n{log.read_text()[-20_000:]}"
            )

    def difference(self, one: str, other: str) -> dict[str, float]:
        """Largest differences between two runs, by what was compared."""
        found = {"losses": self.losses(one, other)}
        files = {
            "result": "output/**/*.safetensors",
            "optimiser": f"checkpoints/step-00000{STEPS}/optimizer.safetensors",
            "average": f"checkpoints/step-00000{STEPS}/ema.safetensors",
            "weights": f"checkpoints/step-00000{STEPS}/weights.safetensors",
        }
        for name, pattern in files.items():
            ours = {path.relative_to(self.root / one) for path in (self.root / one).glob(pattern)}
            theirs = {
                path.relative_to(self.root / other) for path in (self.root / other).glob(pattern)
            }
            assert ours, (one, name)
            assert ours == theirs, (other, name, ours, theirs)
            found[name] = max(
                apart(self.root / one / path, self.root / other / path) for path in ours
            )
        return found

    def losses(self, one: str, other: str, name: str = "loss") -> float:
        """Largest difference between the losses of two runs, step by step."""
        ours, theirs = self._metric(one, name), self._metric(other, name)
        return max(abs(ours[step] - value) for step, value in theirs.items())

    def _metric(self, run: str, name: str) -> dict[int, float]:
        lines = (self.root / run / "journal.ndjson").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return {
            event["step"]: event["values"][name]
            for event in events
            if event["kind"] == "metric" and name in event["values"]
        }

    def said(self, run: str, words: str) -> bool:
        """Whether the log of a run holds ``words``."""
        return words in (self.root / run / "journal.ndjson").read_text()


def apart(one: Path, other: Path) -> float:
    """Largest difference between two files of tensors; infinite if they differ in form."""
    left, right = load_file(one), load_file(other)
    form = {name: (each.shape, each.dtype) for name, each in left.items()}
    if form != {name: (each.shape, each.dtype) for name, each in right.items()}:
        return float("inf")
    return max((left[name].double() - right[name].double()).abs().max().item() for name in left)


def named(what: str, strategy: str) -> str:
    return f"{what} by {strategy}".replace(", ", "-").replace(" ", "-")


def cases(trials: Trials) -> dict[int, list[Document]]:
    """What each number of processes has to train."""
    alone, together = [], []
    for what, asked in COMPARISONS.items():
        alike = {key: each for key, each in asked.changes.items() if key != "accumulation"}
        spec = trials.spec(asked.kind, "", 4, alike)
        alone.append({"root": str(trials.root / named(what, "one")), "spec": spec})
        for strategy in asked.strategies:
            batch = 4 if "context" in strategy else 2 // asked.changes.get("accumulation", 1)
            spec = trials.spec(asked.kind, strategy, batch, asked.changes)
            together.append({"root": str(trials.root / named(what, strategy)), "spec": spec})
    half = trials.spec("full", "", 2, {})
    alone.append({"root": str(trials.root / "half"), "spec": half})
    for before, after in [*((each, each) for each in GOES_ON), *CHANGES]:
        for kind in ("full", "lora"):
            root = str(trials.root / named(f"{kind} from {before}", after))
            first = {"root": root, "spec": trials.spec(kind, before, 2, {}), "stop_after": STOPPED}
            then = {"root": root, "spec": trials.spec(kind, after, 2, {}), "resume": "latest"}
            together += [first, then]
    return {1: alone, 2: together}


def measure(trials: Trials) -> list[Result]:
    """Train everything, then compare."""
    wanted = cases(trials)
    for processes, each in wanted.items():
        trials.launch(each, processes)
    # One process goes on with what two have begun: only with another batch.
    root = str(trials.root / "fewer")
    first = {"root": root, "spec": trials.spec("lora", "fsdp2", 2, {}), "stop_after": STOPPED}
    trials.launch([first], 2)
    trials.launch([{"root": root, "spec": trials.spec("lora", "", 2, {}), "resume": "latest"}], 1)
    results = []
    for what, asked in COMPARISONS.items():
        for strategy in asked.strategies:
            run = named(what, strategy)
            found = trials.difference(named(what, "one"), run)
            if "ddp" in asked.strategies:  # it has the same batches, which choose the noise
                ddp = named(what, "ddp")
                found["held out"] = trials.losses(ddp, run, "evaluation_loss")
            name = f"{what}, {strategy}: 2 processes from 1"
            results.append(Result(name, max(found.values()), "", asked.goal, list(found.values())))
            assert trials.said(run, "2 processes together"), run
    half = apart(
        trials.root / named("full", "one") / "output/weights.safetensors",
        trials.root / "half" / "output/weights.safetensors",
    )
    results.append(Result("full, control: half a batch from a whole one", half, "", DIFFERENT))
    for kind in ("full", "lora"):
        for each in GOES_ON:
            found = trials.difference(named(kind, each), named(f"{kind} from {each}", each))
            name = f"{kind}, {each}: stopped and gone on, from not stopped"
            results.append(Result(name, max(found.values()), "", EXACT, list(found.values())))
        for before, after in CHANGES:
            found = trials.difference(named(kind, "ddp"), named(f"{kind} from {before}", after))
            name = f"{kind}, begun by {before}, ended by {after}: from not stopped"
            results.append(Result(name, max(found.values()), "", EQUAL, list(found.values())))
    went_on = float(trials.said("fewer", f"resumed from step-00000{STOPPED}"))
    results.append(Result("lora, begun by 2, ended by 1 process", went_on, "", TOGETHER))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help="the same: it is as short as it can be"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Trials(Path(folder)))
    return 0 if report("distributed_equal", results, arguments.json) else 1


if __name__ == "__main__":
    sys.exit(main())
