"""What ``st-train plan`` foretells of an accelerator against what runs on a real one take.

python benchmarks/on_accelerator.py --gpu H100-80GB [--only CASE ...] [--json PATH]

Needs an accelerator of CUDA. Models of published sizes (``published_sizes.py``) get random weights
in bf16 and are trained for a dozen steps on pictures of 1024 pixels: LoRA and all weights, with
what saves memory or time. The text encoders beside CLIP have two layers, since they only fill the
cache. Bytes are those of torch's allocator at the peak of a step, and at the peak of the whole
run; seconds are the median of the steps after the first three. Every run is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from published_sizes import SIZES, write_sizes
from report import Goal, Result, progress, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fixtures.tiny.parts import clip_tokenizer, t5_tokenizer

from st_trainer.families.registry import REGISTRY

ERROR = Goal("at most", 0.1)
"""Most by which the foretold bytes at the peak of a step may be wrong."""
PACE = Goal("at most", 2.0)
"""How many times as long, or as short, a step may take as foretold."""
STEPS, WARM = 12, 3
PIXELS, PICTURES = 1024, 8
CHECKPOINTING = {"gradient_checkpointing": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("sdxl 2.6B", {}),
    "LoRA, batch 4": ("sdxl 2.6B", {"batch_size": 4}),
    "LoRA, batch 4, checkpointing": ("sdxl 2.6B", {"batch_size": 4, "memory": CHECKPOINTING}),
    "LoRA, compiled": ("sdxl 2.6B", {"speed": {"compile": True}}),
    "LoRA, int8": ("sdxl 2.6B", {"memory": {"quantization": {"format": "int8"}}}),
    "LoRA, fp8": ("sdxl 2.6B", {"memory": {"quantization": {"format": "fp8"}}}),
    "LoRA, nf4": ("sdxl 2.6B", {"memory": {"quantization": {"format": "nf4"}}}),
    "LoRA, offloaded": (
        "sdxl 2.6B", {"memory": {**CHECKPOINTING, "offload": {"level": "block"}}},
    ),
    "all weights": ("sdxl 2.6B", {"adapter": {"kind": "full"}}),
    "all weights, 8 bits": (
        "sdxl 2.6B",
        {"adapter": {"kind": "full"}, "optimizer": {"name": "adamw_8bit", "learning_rate": 1e-6}},
    ),
    "sd3 LoRA": ("sd3 2.5B", {}),
    "flux LoRA": ("flux 12B", {"memory": CHECKPOINTING}),
    "flux LoRA, nf4": (
        "flux 12B", {"memory": {**CHECKPOINTING, "quantization": {"format": "nf4"}}},
    ),
    "flux LoRA, offloaded": (
        "flux 12B", {"memory": {**CHECKPOINTING, "offload": {"level": "block"}}},
    ),
}  # fmt: skip


def main() -> int:
    """Build, foretell, run, print, write; 1 if a goal is missed, or a run fails or is left out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpu", required=True, metavar="NAME", help="as `st-train plan` knows it")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument(
        "--minutes", type=float, default=60, metavar="N", help="begin no case after so long"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no accelerator of CUDA here")
    ends = time.monotonic() + 60 * options.minutes
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "pictures")
        jobs = {case: write_job(folder, case) for case in options.only}
        with ThreadPoolExecutor(8) as pool:
            plans = {case: pool.submit(plan, job, options.gpu) for case, job in jobs.items()}
            for model in dict.fromkeys(CASES[case][0] for case in options.only):
                build(model, folder / model)
        results, all_ran = [], True
        for case, job in jobs.items():
            if time.monotonic() > ends:
                progress(f"no time is left for {case}")
                all_ran = False
                continue
            progress(case)
            taken = run(job)
            if taken is None:
                all_ran = False
            else:
                results += compared(case, plans[case].result(), taken)
    return 0 if report("on_accelerator", results, options.json) and all_ran else 1


def write_job(folder: Path, case: str) -> Path:
    """The job file of a case; its model is not there yet."""
    model, changes = CASES[case]
    training = {
        "model": {"family": SIZES[model][0], "base": str(folder / model)},
        "datasets": [{"path": str(folder / "pictures")}],
        "steps": STEPS,
        "batch_size": 1,
        "precision": "bf16",
        "adapter": {"kind": "lora", "rank": 16},
        "optimizer": {"name": "adamw", "learning_rate": 1e-5},
        "validation": {"every": 1000},
        "checkpoint": {"every": 1000},
    }
    job = folder / f"{list(CASES).index(case)}.yaml"
    job.write_text(yaml.safe_dump({"name": "measured", "training": training | changes}))
    if not (folder / model).exists():
        write_sizes(model, folder / model)
        for config in (folder / model).glob("text_encoder*/config.json"):
            values = json.loads(config.read_text())
            if "d_model" in values:
                config.write_text(json.dumps(values | {"num_layers": 2}))
    return job


def make_pictures(folder: Path) -> None:
    """Pictures of noise, with captions."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(PICTURES):
        pixels = random.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png", compress_level=0)
        (folder / f"{index}.txt").write_text("some noise")


def build(model: str, folder: Path) -> None:
    """Random weights in bf16 for every part that ``write_sizes`` described."""
    import diffusers  # noqa: PLC0415 -- plans are made meanwhile
    import transformers  # noqa: PLC0415

    begun = time.perf_counter()
    code = REGISTRY[SIZES[model][0]]
    torch.manual_seed(0)
    for part, place in code.components.items():  # type: ignore[attr-defined]
        library, kind = place.split(".", 1)
        target = folder / part
        if kind == "CLIPTokenizer":
            clip_tokenizer().save_pretrained(target)
        elif kind == "T5TokenizerFast":
            t5_tokenizer(512).save_pretrained(target)
        elif part != "scheduler":
            kept = torch.get_default_dtype()
            torch.set_default_dtype(torch.bfloat16)
            with torch.device("cuda"):
                if library == "diffusers":
                    made = getattr(diffusers, kind).from_config(_config(target))
                else:
                    known = getattr(transformers, kind)
                    made = known(known.config_class.from_json_file(target / "config.json"))
            torch.set_default_dtype(kept)
            made.save_pretrained(target)
            del made
            torch.cuda.empty_cache()
    progress(f"{model} written in {time.perf_counter() - begun:.0f} s")


def _config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return values


def plan(job: Path, gpu: str) -> dict[str, Any]:
    """What is foretold of a job."""
    command = [sys.executable, "-m", "st_trainer", "plan", str(job), "--gpu", gpu, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job.read_text()}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)["estimate"]
    return found


def run(job: Path) -> dict[str, Any] | None:
    """What a run of a job took; none: it failed, which is told."""
    command = [sys.executable, __file__, "--watched", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        progress(f"ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def watched(job: str) -> int:
    """Run a job in this process, and print its peaks and the seconds of its steps."""
    from st_trainer import loop  # noqa: PLC0415 -- not in the process that only measures
    from st_trainer.cli import st_train  # noqa: PLC0415

    original = loop.next_step
    seconds: list[float] = []
    peaks: dict[str, int] = {}

    def timed(session: Any, rate: float) -> Any:
        torch.cuda.synchronize()
        if len(seconds) == WARM - 1:
            peaks["rest"] = torch.cuda.memory_allocated()
            peaks["before"] = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        answer = original(session, rate)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        peaks["step"] = torch.cuda.max_memory_allocated()
        peaks["reserved"] = torch.cuda.max_memory_reserved()
        return answer

    loop.next_step = timed
    with TemporaryDirectory() as folder:
        try:
            st_train(["run", job, "--run-dir", f"{folder}/run", "--quiet"], standalone_mode=False)
        except SystemExit as end:
            if end.code:
                raise
    peaks["run"] = max(peaks["before"], torch.cuda.max_memory_allocated())
    print(json.dumps({**peaks, "seconds": seconds}))
    return 0


def compared(case: str, foretold: dict[str, Any], taken: dict[str, Any]) -> list[Result]:
    """Foretold against taken."""
    guess, found = foretold["total_bytes"], taken["step"]
    second = median(taken["seconds"][WARM:])
    pace = second / foretold["step_seconds"]
    gib = 2**30
    return [
        Result(
            f"{case}: {guess / gib:.2f} GiB foretold of {found / gib:.2f}",
            abs(guess / found - 1), "off by", ERROR,
        ),
        Result(
            f"{case}: a step, {foretold['step_seconds']:.3f} s foretold of {second:.3f}",
            max(pace, 1 / pace), "times", PACE,
        ),
        Result(f"{case}: peak of the run", taken["run"] / gib, "GiB", None),
        Result(
            f"{case}: reserved, of {foretold['needed_bytes'] / gib:.2f} GiB said to be needed",
            taken["reserved"] / gib, "GiB", Goal("at most", foretold["needed_bytes"] / gib),
        ),
        Result(f"{case}: weights and states", taken["rest"] / gib, "GiB", None),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(watched(sys.argv[2]) if sys.argv[1:2] == ["--watched"] else main())
