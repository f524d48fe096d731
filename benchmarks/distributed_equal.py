"""Two processes learn what one learns, whatever is spread over them; and they go on from anything.

Every case is trained on 2 processes (gloo, CPU) with half the batch, and compared with one process:
losses, held-out losses, final weights, the average, the optimiser's state, samples. One launch
carries all of them out. DeepSpeed must be installed (``pip install -e '.[deepspeed]'``).
``--only 'lora, *'`` tries the cases of such names.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops
from report import Goal, Result, report
from safetensors.torch import load_file
from torch import Tensor

from st_shared.protocol.journal import ExitCode
from st_trainer.shards import Shards

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

WORKER = Path(__file__).with_name("distributed_cases.py")
EQUAL = Goal("at most", 1e-5)
EXACT = Goal("at most", 0)
ROUNDED = Goal("at most", 2e-3)
"""In bfloat16, where ZeRO-3 adds gradients up in another order: a step of Adam each way."""
DIFFERENT = Goal("at least", 1e-4)
TOGETHER = Goal("at least", 1)
BOTH = Goal("at least", 2)
NEAR = Goal("at most", 2)
"""Values that are rounded to levels, and differ by less than one."""
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
UNDRAWN = ("controlnet", "wan")
"""Kinds of which no pictures are drawn."""
FILM = {"height": 16, "width": 32, "frames": 1, "caption_length": 12}
BF16 = {"precision": "bf16"}
BF16_BY_DEEPSPEED = "lora, bf16, rounded as by DeepSpeed"
PARTS = {"accumulation": 2}
ON_DEMAND = {"cache": {"latents": "on_demand", "text": "on_demand"}}
UNCACHED = {"cache": {"latents": "off", "text": "off"}}
JUDGED = {
    "validation": {
        "prompts": [
            "shade dark",
            {
                "prompt": "shade bright",
                "negative": "shade dark",
                "adapter_strength": 0.5,
                "seed": 3,
            },
        ],
        "resolutions": ["16x16", "32x16"],
        "every": STOPPED,
        "sampler_steps": 2,
        "sweep": {"strengths": [0.5, 1.0], "every": STOPPED},
    }
}
ANEW = {"memory": {"gradient_checkpointing": 1}}


@dataclass(frozen=True)
class Comparison:
    """What is trained, by which strategies, and how close it has to come."""

    kind: str
    strategies: tuple[str, ...]
    goal: Goal = EQUAL
    changes: Document = field(default_factory=dict)
    in_halves: bool = False
    """Whether one process adds its batch up in the same halves.

    In bfloat16 sums are rounded by what they are sums of: a gradient of four samples is another
    number than the mean of those of two and two, whoever computes it, and after some steps of Adam,
    whose length does not depend on that of the gradient, so are weights and samples. One process
    that takes halves rounds as two do, and has to be met as exactly as in fp32.
    """
    linear: str = "torch"
    """Whose function one process computes linear layers with: ``torch`` or ``deepspeed``."""


COMPARISONS = {
    "full": Comparison("full", MAIN),
    "lora": Comparison("lora", (*MAIN, *OTHERS)),
    "lycoris": Comparison("lycoris", MAIN),
    "controlnet": Comparison("controlnet", ("fsdp2", "zero-2", "zero-3")),
    "lora with text encoder": Comparison("text", ("zero-1", "zero-2")),
    "lora by tokens": Comparison("flux", ("context parallel", "context parallel, fsdp2")),
    "lora of films by tokens": Comparison("wan", ("context parallel", "context parallel, fsdp2")),
    "full, added up": Comparison(
        "full", ("ddp", "fsdp2", "zero-1", "zero-2", "zero-3"), EQUAL, PARTS
    ),
    "full, computed anew": Comparison("full", ("fsdp2", "zero-3"), EQUAL, ANEW),
    "lora, computed anew": Comparison("lora", ("fsdp2", "zero-3"), EQUAL, ANEW),
    "lora, encoded when asked for": Comparison(
        "lora", ("ddp", "fsdp2", "zero-3"), EQUAL, ON_DEMAND
    ),
    "lora, encoded each time": Comparison("lora", ("fsdp2", "zero-3"), EQUAL, UNCACHED),
    "lora, drawn and swept": Comparison(
        "lora", ("ddp", "fsdp2", "zero-2", "zero-3"), EQUAL, JUDGED
    ),
    "lora, bf16": Comparison("lora", ("ddp", "fsdp2", "zero-2"), EQUAL, BF16, in_halves=True),
    BF16_BY_DEEPSPEED: Comparison(
        "lora", ("zero-3",), ROUNDED, BF16, in_halves=True, linear="deepspeed"
    ),
}
GOES_ON = ("fsdp2", "zero-1", "zero-2", "zero-3")
"""Stopped and gone on with: bit for bit as if it had not been stopped."""
CHANGES = (("ddp", "fsdp2"), ("fsdp2", "zero-3"), ("zero-3", "zero-2"), ("zero-2", "ddp"))
"""Stopped under one, gone on with under the other."""


class Trials:
    """Folders, specifications and launches."""

    def __init__(self, root: Path, only: list[str]) -> None:
        from fixtures.tiny import TINY  # noqa: PLC0415 -- on the path by now

        self.root, self.only = root, only
        self.squares = root / "squares"
        self.squares.mkdir()
        for index in range(7):
            Image.new("L", (4, 4), 30 * index).save(self.squares / f"{index}.png")
            shade = "dark" if index < 4 else "bright"
            (self.squares / f"{index}.txt").write_text(f"shade {shade}\n")
        for family in ("sd1", "sd3", "flux", "wan"):
            TINY[family].build(root / family)

    def chosen(self, name: str) -> bool:
        """Whether the case of that name is tried."""
        return not self.only or any(fnmatch(name, each) for each in self.only)

    def compared(self) -> Iterator[tuple[str, str, Comparison]]:
        """What is trained by which strategy, and held to one process."""
        for what, asked in COMPARISONS.items():
            for strategy in asked.strategies:
                if self.chosen(f"{what}, {strategy}"):
                    yield what, strategy, asked

    def stopped(self) -> Iterator[tuple[str, str, str]]:
        """What is stopped under one strategy, and gone on with under another or the same."""
        for before, after in [*((each, each) for each in GOES_ON), *CHANGES]:
            for kind in ("full", "lora"):
                if self.chosen(f"{kind}, {before} to {after}"):
                    yield kind, before, after

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
        family = {"flux": "flux", "wan": "wan", "text": "sd1"}.get(kind, "sd3")
        config = FILM if kind == "wan" else {"resolution": 16}
        model = {"family": family, "base": str(self.root / family), "config": config}
        lora = {"kind": "lora", "rank": 2}
        adapters: dict[str, Document] = {
            "lora": lora,
            "flux": lora,
            "wan": lora,
            "text": {**lora, "text_encoder": True},
            "lycoris": {"kind": "lycoris", "rank": 2, "lycoris": {"algorithm": "lokr"}},
            "controlnet": {"kind": "controlnet"},
        }
        found: Document = {"model": model, "adapter": adapters[kind]}
        if kind in UNDRAWN:
            found["validation"] = {"every": STOPPED}
        if kind == "wan":
            found["buckets"] = {"enabled": False}
        if kind == "controlnet":
            read = {"path": str(self.squares), "conditioning": str(self.squares)}
            found["datasets"] = [read, {**read, "evaluation": True}]
        return found

    def launch(self, cases: list[Document], processes: int) -> None:
        """Carry ``cases`` out, one after the other, in ``processes`` processes."""
        file = self.root / f"cases-{processes}.json"
        for case in cases:  # one that goes on has the folder of the one that was stopped
            case["note"] = "ended-again.json" if "resume" in case else "ended.json"
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
        for case in cases:
            code = json.loads((Path(case["root"]) / case["note"]).read_text())["code"]
            if code != (ExitCode.PREEMPTED if "stop_after" in case else ExitCode.SUCCEEDED):
                sys.exit(f"{case['root']} ended with {code}:\n{log.read_text()[-20_000:]}")

    def difference(self, one: str, other: str) -> dict[str, float]:
        """Largest differences between two runs, by what was compared."""
        found = {"losses": self.losses(one, other)}
        left, right = self.root / one, self.root / other
        ours = {path.relative_to(left) for path in left.glob("output/**/*.safetensors")}
        theirs = {path.relative_to(right) for path in right.glob("output/**/*.safetensors")}
        assert ours, one
        assert ours == theirs, (other, ours, theirs)
        found["result"] = max(apart(load_file(left / p), load_file(right / p)) for p in ours)
        last = f"checkpoints/step-00000{STEPS}"
        for kind in ("optimizer", "ema", "weights"):
            found[kind] = apart(kept(left / last, kind), kept(right / last, kind))
        return found

    def pixels(self, one: str, other: str) -> float:
        """Largest difference between the pictures of samples and sweeps of two runs."""
        left, right = self.root / one / "samples", self.root / other / "samples"
        ours = {path.name for path in left.iterdir()}
        assert ours
        assert ours == {path.name for path in right.iterdir()}, other
        found = [0.0]
        for name in ours:
            with Image.open(left / name) as first, Image.open(right / name) as second:
                assert first.size == second.size, (other, name)
                apart = ImageChops.difference(first.convert("RGB"), second.convert("RGB"))
            found += [high for _, high in apart.getextrema()]
        return max(found)

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


def kept(checkpoint: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint, ``(N,)``, whether one process wrote it or several."""
    names = {"optimizer": ["optimizer"], "ema": ["ema"], "weights": ["weights", "buffers"]}
    paths = [checkpoint / f"{name}.safetensors" for name in names[kind]]
    found = {n: t.flatten() for path in paths if path.exists() for n, t in load_file(path).items()}
    shards = Shards(checkpoint)
    for name in shards.below(kind):
        key = f"{kind}.{name}"
        found[name] = shards.read(key, 0, shards.length(key))
    return found


def apart(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Largest difference between tensors of the same names; infinite if they differ in form."""
    form = {name: (each.shape, each.dtype) for name, each in left.items()}
    if form != {name: (each.shape, each.dtype) for name, each in right.items()}:
        return float("inf")
    return max((left[name].double() - right[name].double()).abs().max().item() for name in left)


def named(what: str, strategy: str) -> str:
    return f"{what} by {strategy}".replace(", ", "-").replace(" ", "-")


def cases(trials: Trials) -> dict[int, list[Document]]:
    """What each number of processes has to train."""
    alone: dict[str, Document] = {}
    together: dict[str, Document] = {}

    def add(to: dict[str, Document], name: str, spec: Document, linear: str = "torch") -> None:
        to[name] = {"root": str(trials.root / name), "spec": spec, "linear": linear}

    for what, strategy, asked in trials.compared():
        alike = {key: each for key, each in asked.changes.items() if key != "accumulation"}
        one = trials.spec(asked.kind, "", 4, alike)
        if asked.in_halves:
            one = trials.spec(asked.kind, "", 2, {**alike, **PARTS})
        add(alone, named(what, "one"), one, asked.linear)
        parts = asked.changes.get("accumulation", 1)
        names = [strategy, "ddp"] if "ddp" in asked.strategies else [strategy]
        for each in names:
            batch = 4 if "context" in each else 2 // parts
            add(together, named(what, each), trials.spec(asked.kind, each, batch, asked.changes))
    if not trials.only:
        add(alone, "half", trials.spec("full", "", 2, {}))
    stops = []
    for kind, before, after in trials.stopped():
        add(together, named(kind, before), trials.spec(kind, before, 2, {}))
        add(together, named(kind, "ddp"), trials.spec(kind, "ddp", 2, {}))
        root = str(trials.root / named(f"{kind} from {before}", after))
        first = {"root": root, "spec": trials.spec(kind, before, 2, {}), "stop_after": STOPPED}
        then = {"root": root, "spec": trials.spec(kind, after, 2, {}), "resume": "latest"}
        stops += [first, then]
    return {1: list(alone.values()), 2: [*together.values(), *stops]}


def measure(trials: Trials) -> list[Result]:
    """Train everything, then compare."""
    for processes, each in cases(trials).items():
        if each:
            trials.launch(each, processes)
    results = [*held_to_one(trials), *gone_on_with(trials)]
    if not trials.only:
        half = apart(
            load_file(trials.root / named("full", "one") / "output/weights.safetensors"),
            load_file(trials.root / "half" / "output/weights.safetensors"),
        )
        results.append(Result("full, control: half a batch from a whole one", half, "", DIFFERENT))
    results += rounding(trials)
    if trials.chosen("fewer"):
        results.append(fewer(trials))
    return results


def held_to_one(trials: Trials) -> Iterator[Result]:
    """Two processes against one."""
    for what, strategy, asked in trials.compared():
        run = named(what, strategy)
        found = trials.difference(named(what, "one"), run)
        if "ddp" in asked.strategies:  # it has the same batches, which choose the noise
            ddp = named(what, "ddp")
            found["held out"] = trials.losses(ddp, run, "evaluation_loss")
        name = f"{what}, {strategy}: 2 processes from 1"
        yield Result(name, max(found.values()), "", asked.goal, list(found.values()))
        assert trials.said(run, "2 processes together"), run
        if asked.kind not in UNDRAWN:
            pixels = trials.pixels(named(what, "one"), run)
            yield Result(f"{what}, {strategy}: samples", pixels, "levels of 255", NEAR)
        if asked.kind == "lora" and "cache" not in asked.changes:
            assert trials.said(run, "encoders left memory before the first step"), run
            shards = trials.root.glob(f"{run}/cache/latents/*/*.safetensors")
            yield Result(f"{what}, {strategy}: who encoded", len([*shards]), "processes", BOTH)


def rounding(trials: Trials) -> Iterator[Result]:
    """How far two runs of one process are apart, of which one rounds as ZeRO-3 does: a control.

    This is what ZeRO-3 in bfloat16 differs by from others, and no exchange between processes.
    """
    one, other = named("lora, bf16", "one"), named(BF16_BY_DEEPSPEED, "one")
    if not all((trials.root / each).exists() for each in (one, other)):
        return
    what = "lora, bf16, control: one process with DeepSpeed's rounding from torch's"
    found = trials.difference(one, other)
    yield Result(what, max(found.values()), "", None, list(found.values()))
    yield Result(f"{what}: samples", trials.pixels(one, other), "levels of 255", None)


def gone_on_with(trials: Trials) -> Iterator[Result]:
    """Runs that were stopped against those that were not."""
    for kind, before, after in trials.stopped():
        is_same = before == after
        other = named(kind, before if is_same else "ddp")
        found = trials.difference(other, named(f"{kind} from {before}", after))
        how = "stopped and gone on" if is_same else f"gone on with by {after}"
        name = f"{kind}, {before}: {how}, from not stopped"
        goal = EXACT if is_same else EQUAL
        yield Result(name, max(found.values()), "", goal, list(found.values()))


def fewer(trials: Trials) -> Result:
    """One process goes on with what two have begun: only with another batch."""
    root = str(trials.root / "fewer")
    first = {"root": root, "spec": trials.spec("full", "fsdp2", 2, {}), "stop_after": STOPPED}
    trials.launch([first], 2)
    trials.launch([{"root": root, "spec": trials.spec("full", "", 2, {}), "resume": "latest"}], 1)
    went_on = float(trials.said("fewer", f"resumed from step-00000{STOPPED}"))
    return Result("full, begun by 2, ended by 1 process", went_on, "", TOGETHER)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help="the same: it is as short as it can be"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="cases of such names alone"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Trials(Path(folder), arguments.only))
    return 0 if report("distributed_equal", results, arguments.json) else 1


if __name__ == "__main__":
    sys.exit(main())
