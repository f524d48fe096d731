"""One batch of a training step: samples, noise, times, captions, and what techniques add."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from st_trainer.errors import DamagedLaterError
from st_trainer.families.family import Condition
from st_trainer.objectives.caption_dropout import drop_captions
from st_trainer.objectives.noise import Noise, draw_noise
from st_trainer.session import Session
from st_trainer.share import Share


@dataclass
class Batch:
    """Tensors of one step, on the device of the model; techniques may replace any of them."""

    indexes: Sequence[int]
    """Which samples these are: this rank's share of the batch."""
    clean: Tensor
    """Latents ``(B, C, ...)``."""
    noise: Noise
    times: Tensor
    """Times of the objective, ``(B,)``."""
    captions: Sequence[str]
    """What the samples are told to be; some are dropped."""
    condition: Condition
    noisy: Tensor
    """What the model sees."""
    target: Tensor
    """What it should answer."""
    weights: Tensor | None = None
    """How much each value counts, ``(B,)`` or broadcast to the target; None: all alike."""


def draw_batch(session: Session, indexes: Sequence[int], share: Share | None = None) -> Batch:
    """A share of the samples at ``indexes``, with noise, times and dropped captions.

    Random numbers are drawn for all ``indexes``, so every rank draws the same and takes its rows;
    without ``share``, those of this rank. Where one turns out to be damaged, the batch is drawn
    once more with the next sample of its bucket in its place, and the same numbers.

    Raises:
        DamagedBucketError: all samples of the bucket are.
    """
    before = session.generator.get_state()
    while True:
        try:
            return _drawn(session, session.samples.sound(indexes), share)
        except DamagedLaterError:
            session.generator.set_state(before)


def _drawn(session: Session, indexes: Sequence[int], share: Share | None) -> Batch:
    denoiser, generator = session.denoiser, session.generator
    share = share or session.ranks.share
    spec, device = session.spec.objective, session.accelerator.device
    mine = share.rows(indexes)
    clean = session.encodings.latents(session.samples, mine, generator, share)
    shape = torch.Size((len(indexes), *clean.shape[1:]))
    drawn = draw_noise(shape, spec.noise, session.step, generator)
    objective = denoiser.objective
    times = objective.draw(len(indexes), denoiser.tokens(clean), generator)
    times = share.rows(times).to(device)
    kept = session.samples.captions_at(indexes, (session.spec.seed, session.step))
    dropout = session.samples.caption_dropout(indexes, spec.caption_dropout)
    captions = share.rows(drop_captions(kept, dropout, generator))
    condition = session.encode(captions, mine)
    clean = clean.to(device)
    noise = Noise(share.rows(drawn.target).to(device), share.rows(drawn.seen).to(device))
    return Batch(
        mine,
        clean,
        noise,
        times,
        captions,
        condition,
        noisy=objective.noisy(clean, noise.seen, times),
        target=objective.target(clean, noise.target, times),
    )
