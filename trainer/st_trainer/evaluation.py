"""The loss on samples that are held out: the same samples, noise and times whenever it is asked."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from st_trainer.data.samples import Samples
from st_trainer.errors import DamagedBucketError, DamagedLaterError
from st_trainer.families.family import Condition
from st_trainer.journal import Journal
from st_trainer.session import Session

METRIC = "evaluation_loss"
_MOST_PARTS = 8
"""Parts of the path to noise whose loss is told by itself, at most."""


@dataclass(frozen=True)
class HeldOutLoss:
    """The loss on held-out samples, the mean over all and in each part of the path to noise."""

    mean: float
    parts: tuple[float, ...]
    """Means in parts of equal length, from clean to noise."""

    @property
    def metrics(self) -> dict[str, float]:
        """By name: ``evaluation_loss``, and ``evaluation_loss_0.25-0.5`` for a part of several."""
        count = len(self.parts)
        names = (f"{METRIC}_{part / count:g}-{(part + 1) / count:g}" for part in range(count))
        parts = dict(zip(names, self.parts, strict=True)) if count > 1 else {}
        return {METRIC: self.mean, **parts}


def tell_held_out_loss(session: Session, journal: Journal) -> None:
    """Measure it, where there are such samples, with the model that is sampled from."""
    if session.held_out is not None:
        journal.metric(session.step, held_out_loss(session, session.held_out).metrics)
        for text in session.held_out.newly_damaged():
            journal.log(f"left out {text}", "warning")


@torch.no_grad()
def held_out_loss(session: Session, held_out: Samples) -> HeldOutLoss:
    """The mean loss on ``held_out`` over evenly spread times.

    What is drawn follows from ``validation.seed`` alone, and no random number of training is used:
    on the same hardware equal weights have an equal loss, to the last bit.
    """
    spec, device = session.spec, session.accelerator.device
    count = spec.validation.evaluation_times
    shares = (torch.arange(count) + 0.5) / count
    totals, seen = [0.0] * count, 0
    with session.evaluating() as denoiser, session.accelerator.autocast():
        objective = denoiser.objective
        for indexes in batches(
            held_out, spec.validation.evaluation_samples, spec.validation.seed, spec.batch_size
        ):
            generator = torch.Generator().manual_seed(spec.validation.seed + indexes[0])
            try:
                clean, condition = _known(session, held_out, indexes, generator)
            except DamagedBucketError:
                continue  # told like each of them
            for place, share in enumerate(shares):
                noise = torch.randn(clean.shape, generator=generator).to(device)
                times = objective.from_share(share.expand(len(indexes))).to(device)
                known = clean.to(device)
                answer = denoiser.predict(objective.noisy(known, noise, times), times, condition)
                loss = objective.loss(answer, objective.target(known, noise, times), times)
                totals[place] += loss.double().item() * len(indexes)
            seen += len(indexes)
    if not seen:
        raise DamagedBucketError("training.datasets: all samples that are held out are damaged")
    means = [total / seen for total in totals]
    return HeldOutLoss(fmean(means), _in_parts(means))


def _known(
    session: Session, held_out: Samples, indexes: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Condition]:
    """Latents and condition of held-out samples, others in place of damaged ones."""
    while True:
        sound = held_out.sound(indexes)
        try:
            condition = session.encode(held_out.captions_at(sound), sound, held_out)
            return session.encodings.latents(held_out, sound, generator), condition
        except DamagedLaterError:
            continue


def _in_parts(means: list[float]) -> tuple[float, ...]:
    """The means of ``means`` in as many parts as divide them evenly, at most ``_MOST_PARTS``."""
    count = next(n for n in range(min(len(means), _MOST_PARTS), 0, -1) if len(means) % n == 0)
    size = len(means) // count
    return tuple(fmean(means[start : start + size]) for start in range(0, len(means), size))


def batches(samples: Samples, most: int, seed: int, size: int) -> Iterator[list[int]]:
    """At most ``most`` of ``samples``, in batches of one bucket and at most ``size``."""
    chosen = np.random.default_rng(seed).permutation(len(samples))[:most]
    by_bucket: defaultdict[int, list[int]] = defaultdict(list)
    for index in sorted(chosen.tolist()):
        by_bucket[int(samples.buckets[index])].append(index)
    for _, indexes in sorted(by_bucket.items()):
        for start in range(0, len(indexes), size):
            yield indexes[start : start + size]
