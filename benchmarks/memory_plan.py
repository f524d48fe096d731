"""What `st-train plan` foretells against what a run then holds: bytes of each part, CPU.

python benchmarks/memory_plan.py [--quick] [--json PATH]

LoRA, and full training, of a Stable Diffusion XL of a million weights, 128 pixels, batch 2. What
lies there is measured by the storages that tensors lead to, activations by what torch's allocator
reports at the peak of one forward and backward pass. A ratio of 1 is an exact prediction.
"""

import argparse
import gc
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from report import Goal, Result, report
from tiny_sdxl import PIXELS, build_model, make_pictures
from torch.profiler import ProfilerActivity, profile

from st_shared.spec import TrainingSpec
from st_shared.spec.cache import CacheSpec
from st_trainer.adapters.adapter import trained
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.loop import step
from st_trainer.planning.estimate import estimate
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

ERROR = 0.10
"""Most by which a prediction may be wrong."""
CASES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "int8": {"memory": {"quantization": {"format": "int8"}}},
    "int8 of quanto": {"memory": {"quantization": {"format": "int8", "backend": "quanto"}}},
    "int8 of bitsandbytes": {
        "memory": {"quantization": {"format": "int8", "backend": "bitsandbytes"}}
    },
    "nf4": {"memory": {"quantization": {"format": "nf4"}}},
    "fp8": {"memory": {"quantization": {"format": "fp8"}}},
    "checkpointing": {"memory": {"gradient_checkpointing": 1}},
    "adamw_8bit": {"adapter": {"rank": 64}, "optimizer": {"name": "adamw_8bit"}},
    "schedule-free": {"optimizer": {"name": "adamw_schedulefree"}},
    "full": {"adapter": {"kind": "full"}},
}
QUICK = ("fp32", "int8", "nf4", "checkpointing")


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder / "model")
        make_pictures(folder / "pictures")
        for case in QUICK if options.quick else CASES:
            results += compared(case, specification(folder, CASES[case]))
    return 0 if report("memory_plan", results, options.json) else 1


def specification(folder: Path, changes: dict[str, Any]) -> TrainingSpec:
    """Batch 2; encoders stay, so that they are measured too."""
    model = {
        "family": "sdxl", "base": str(folder / "model"), "config": {"resolution": PIXELS},
    }  # fmt: skip
    document = {
        "model": model,
        "datasets": [{"path": str(folder / "pictures")}],
        "batch_size": 2,
        "cache": {"latents": "off", "text": "off"},
    }
    return TrainingSpec.model_validate(document | changes)


def compared(case: str, spec: TrainingSpec) -> list[Result]:
    """Foretold over measured, of each part that there is."""
    foretold, measured = estimate(spec), measure(spec)
    alone = estimate(spec.model_copy(update={"cache": CacheSpec()}))  # without encoders at work
    passes = alone.activations + alone.gradients
    pairs = {
        "frozen weights": (foretold.base, measured["base"]),
        "what is trained": (foretold.adapter, measured["adapter"]),
        "activations and gradients": (passes, measured["passes"]),
        "state of the optimiser": (foretold.optimizer, measured["optimizer"]),
        "text encoders": (foretold.text_encoders, measured["text_encoders"]),
        "VAE": (foretold.vae, measured["vae"]),
    }
    results = []
    for part, (guess, found) in pairs.items():
        if not found:
            continue
        wrong = abs(guess / found - 1)
        name = f"{case}: {part}, {guess:,} foretold of {found:,}"
        results.append(Result(name, wrong, "off by", Goal("at most", ERROR)))
    return results


def measure(spec: TrainingSpec) -> dict[str, int]:
    """Bytes of a session after a step, and those that a pass adds at its peak."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # noqa: SLF001 -- a new process would not have them
    folder = Path(str(spec.datasets[0].path))
    samples = read_datasets(spec.datasets, [folder], Images(3, PIXELS, PIXELS)).samples
    session = Session(spec, samples, open_denoiser(spec, list))
    found = {"passes": peak_of(session)}
    step(session, [0, 1], 1e-4)
    learned = {id(each) for each in trained(session.module).values()}
    frozen = [each for each in session.module.parameters() if id(each) not in learned]
    assets = session.denoiser.assets
    readers = [part for name, part in assets.items() if name.startswith("text_encoder")]
    state = session.optimizer.state_dict()["state"]
    return found | {
        "base": held([*frozen, *session.module.buffers()]),
        "adapter": held(trained(session.module)),
        "optimizer": held(state, least=2),
        "text_encoders": held([[*each.parameters(), *each.buffers()] for each in readers]),
        "vae": held([*assets["vae"].parameters(), *assets["vae"].buffers()]),
    }


def peak_of(session: Session) -> int:
    """Bytes that torch's allocator adds at most during one forward and backward pass."""
    denoiser, count = session.denoiser, session.spec.batch_size
    noisy = torch.randn(count, *denoiser.latent_shape)
    times = denoiser.objective.from_share(torch.rand(count))
    with torch.no_grad():
        condition = denoiser.encode(["a square"] * count)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        denoiser.predict(noisy, times, condition).square().mean().backward()
    now = peak = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    session.optimizer.zero_grad()
    return peak


def held(tree: Any, least: int = 1) -> int:
    """Bytes of the storages that ``tree`` leads to, each once; of tensors of ``least`` values."""
    found: dict[int, int] = {}

    def look(part: Any) -> None:
        if hasattr(part, "__tensor_flatten__"):
            look([getattr(part, name) for name in part.__tensor_flatten__()[0]])
        elif isinstance(part, torch.Tensor):
            if part.numel() >= least:
                storage = part.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
            if quantised := getattr(part, "quant_state", None):
                look([quantised.absmax, quantised.state2.absmax])
        elif isinstance(part, dict):
            look(list(part.values()))
        elif isinstance(part, list | tuple):
            for each in part:
                look(each)

    look(tree)
    return sum(found.values())


if __name__ == "__main__":
    sys.exit(main())
