"""What caches cost and save: the pace of caching over a bare encode loop, and of steps with them.

python benchmarks/caching.py [--quick] [--json PATH]

A tiny SDXL, whose encoders are as cheap beside the rest as they will ever be: with large ones what
is not their arithmetic weighs less. One thread of torch, CPU seconds of all threads, the two sides
by turns in one process; the bare loop encodes what is in memory, and keeps nothing.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from report import Goal, Result, report
from tiny_sdxl import PIXELS, build_model

from st_shared.spec import TrainingSpec
from st_trainer.caching.encodings import Encodings, Kind
from st_trainer.caching.fill import Filling, missing_of
from st_trainer.caching.prepare import modes_of, open_folders, works
from st_trainer.data.reading import read_datasets
from st_trainer.data.samples import Samples
from st_trainer.families.family import Denoiser
from st_trainer.journal import SilentJournal
from st_trainer.loop import step
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

RATE = 1e-4
BATCH = 4
WARM_UP = 3
"""Steps that are not counted."""
GOALS = {
    "caching ÷ bare, latents": Goal("at least", 0.9),
    "caching ÷ bare, captions": Goal("at least", 0.9),
    "cached step ÷ uncached step": Goal("at most", 1.0),
}
LABELS = {Kind.LATENTS: "latents", Kind.TEXT: "captions"}


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds on 32 pictures")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds, count = (3, 32) if options.quick else (5, 128)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder / "model")
        make_noise(folder / "pictures", count)
        spec, samples = open_samples(folder)
        denoiser = open_denoiser(spec, list)
        results = caching_results(spec, samples, denoiser, folder, rounds)
        results += step_results(spec, samples, denoiser, folder / "cache 0", rounds)
    return 0 if report("caching", results, options.json) else 1


def make_noise(folder: Path, count: int) -> None:
    """Pictures of noise, each with a caption of its own."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(count):
        pixels = generator.integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"noise of kind {index}")


def open_samples(folder: Path) -> tuple[TrainingSpec, Samples]:
    """The specification, and its samples, decoded and in memory."""
    document = {
        "model": {
            "family": "sdxl",
            "base": str(folder / "model"),
            "config": {"resolution": PIXELS},
        },
        "datasets": [{"path": str(folder / "pictures")}],
        "batch_size": BATCH,
        "adapter": {"rank": 4},
        "ema": {"enabled": False},
    }
    spec = TrainingSpec.model_validate(document)
    denoiser = open_denoiser(spec, list)
    places = [folder / "pictures"]
    return spec, read_datasets(spec.datasets, places, denoiser.medium).samples


def caching_results(
    spec: TrainingSpec, samples: Samples, denoiser: Denoiser, folder: Path, rounds: int
) -> list[Result]:
    """The pace of caching, in a new folder each round, over that of the bare loop."""
    seconds: dict[Kind, tuple[list[float], list[float]]] = {}
    for number in range(rounds + 1):
        fill, work = filling(spec, samples, denoiser, folder / f"cache {number}")
        for kind in work:
            sides = (partial(fill, kind), bare_loop(denoiser, samples, kind))
            for side, kept in zip(sides, seconds.setdefault(kind, ([], [])), strict=True):
                spent = measured(side)
                if number:  # the first warms up
                    kept.append(spent)
    results = []
    for kind, (ours, bare) in seconds.items():
        ratios = [theirs / mine for mine, theirs in zip(ours, bare, strict=True)]
        name = f"caching ÷ bare, {LABELS[kind]}"
        pace = len(samples) / median(ours)
        results += [
            Result(f"{LABELS[kind]} cached a CPU second", pace, "1/s", None),
            Result(name, median(ratios), "x", GOALS[name], ratios),
        ]
    return results


def filling(
    spec: TrainingSpec, samples: Samples, denoiser: Denoiser, root: Path
) -> tuple[Callable[[Kind], None], list[Kind]]:
    """What fills a new folder with all of one kind, and the kinds."""
    modes = modes_of(spec, len(samples), 1)
    folders = open_folders(spec, denoiser, modes, root, SilentJournal())
    encodings = Encodings(denoiser, spec.cache.at_once, folders)
    work = {each.kind: each for each in works(spec, modes, (samples, None))}

    def fill(kind: Kind) -> None:
        missing = missing_of(work[kind], folders[kind])
        Filling(encodings, spec.cache.at_once, lambda *_: None).encode(work[kind], missing)

    return fill, list(work)


def bare_loop(denoiser: Denoiser, samples: Samples, kind: Kind) -> Callable[[], None]:
    """Every sample or caption through its encoder, one by one."""
    family, assets = denoiser.family, denoiser.assets
    texts = [*samples.captions, ""]
    values = [samples.values([index]) for index in range(len(samples))]

    @torch.no_grad()
    def one() -> None:
        if kind is Kind.TEXT:
            for text in texts:
                family.encode(denoiser.config, assets, [text])
            return
        for each in values:
            family.encoded(assets, each)

    return one


def step_results(
    spec: TrainingSpec, samples: Samples, denoiser: Denoiser, root: Path, rounds: int
) -> list[Result]:
    """CPU seconds of a step that encodes, and of one that finds everything on disk."""
    modes = modes_of(spec, len(samples), 1)
    folders = open_folders(spec, denoiser, modes, root, SilentJournal())
    with_cache = Session(
        spec, samples, denoiser, encodings=Encodings(denoiser, spec.cache.at_once, folders)
    )
    without = Session(spec, samples, open_denoiser(spec, list))
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(10 * rounds + WARM_UP):
        indexes = without.sampler.take(BATCH)
        for session, kept in zip((with_cache, without), seconds, strict=True):
            spent = measured(partial(step, session, indexes, RATE))
            if number >= WARM_UP:
                kept.append(spent)
    cached, uncached = map(median, seconds)
    name = "cached step ÷ uncached step"
    return [
        Result("uncached step", 1000 * uncached, "ms", None),
        Result("cached step", 1000 * cached, "ms", None),
        Result(name, cached / uncached, "x", GOALS[name]),
    ]


def measured(act: Callable[[], object]) -> float:
    """CPU seconds of all threads."""
    begun = time.process_time()
    act()
    return time.process_time() - begun


if __name__ == "__main__":
    raise SystemExit(main())
