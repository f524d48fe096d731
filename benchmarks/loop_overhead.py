"""What a step costs beside its arithmetic: our step over a bare loop on the same model and data.

python benchmarks/loop_overhead.py [--quick] [--json PATH]

One thread, CPU seconds, the two loops by turns. The model reads its inputs from memory, so that
nothing but the loop differs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from report import Goal, Result, report
from torch.nn import functional

from st_shared.spec import TrainingSpec
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.loop import step
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

BATCH = 32
RATE = 1e-4
WARM_UP = 3


def main() -> int:
    """Measure, print, write; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds, not five")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        session = small_session(Path(folder))
        indexes = list(range(BATCH))
        loops = (lambda: step(session, indexes, RATE), bare_loop(session, indexes))
        ratios = [ratio(*loops, steps=20) for _ in range(3 if options.quick else 5)]
    goal = Goal("at most", 1.03)
    results = [Result("our step ÷ a bare loop, pixel_dit", median(ratios), "x", goal, ratios)]
    return 0 if report("loop_overhead", results, options.json) else 1


def small_session(folder: Path) -> Session:
    """The model of the digits example on a batch of grey squares."""
    for index in range(BATCH):
        Image.new("L", (8, 8), 7 * index).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("a grey square")
    document = {
        "model": {"family": "pixel_dit"},
        "datasets": [{"path": str(folder)}],
        "batch_size": BATCH,
        "ema": {"enabled": False},
    }
    spec = TrainingSpec.model_validate(document)
    samples = read_datasets(spec.datasets, [folder], Images(channels=1, height=8, width=8)).samples
    return Session(spec, samples, open_denoiser(spec, lambda: samples.captions))


def bare_loop(session: Session, indexes: list[int]) -> Callable[[], object]:
    """A step written out by hand on a model of the same shape."""
    spec, family = session.spec, session.denoiser.family
    module = family.build(session.denoiser.config, session.denoiser.assets)
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, betas=(0.9, 0.99), fused=True)
    clean = session.samples.values(indexes)
    words = session.denoiser.encode(session.samples.captions_at(indexes))["words"]

    def one() -> tuple[float, float]:
        noise, times = torch.randn(clean.shape), torch.randn(BATCH).sigmoid()
        t = times.view(-1, 1, 1, 1)
        answer = module((1 - t) * clean + t * noise, times, words)
        loss = functional.mse_loss(answer, noise - clean)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), spec.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item(), float(norm)

    return one


def ratio(ours: Callable[[], object], bare: Callable[[], object], steps: int) -> float:
    """Median CPU seconds of the one over those of the other."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for index in range(WARM_UP + steps):
        for loop, kept in zip((ours, bare), seconds, strict=True):
            begun = time.process_time()
            loop()
            if index >= WARM_UP:
                kept.append(time.process_time() - begun)
    return median(seconds[0]) / median(seconds[1])


if __name__ == "__main__":
    raise SystemExit(main())
