"""One batch of a training step: samples, noise, times, captions, and what techniques add."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from st_trainer.families.family import Condition
from st_trainer.objectives.caption_dropout import drop_captions
from st_trainer.objectives.noise import Noise, draw_noise
from st_trainer.session import Session


@dataclass
class Batch:
    """Tensors of one step, on the device of the model; techniques may replace any of them."""

    indexes: Sequence[int]
    """Which samples these are."""
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


def draw_batch(session: Session, indexes: Sequence[int]) -> Batch:
    """The batch of the samples at ``indexes``, with fresh noise, times and dropped captions."""
    denoiser, generator = session.denoiser, session.generator
    spec, device = session.spec.objective, session.accelerator.device
    clean = denoiser.latents(session.samples.values(indexes), generator)
    drawn = draw_noise(clean.shape, spec.noise, session.step, generator)
    objective = denoiser.objective
    times = objective.draw(len(indexes), denoiser.tokens(clean), generator).to(device)
    kept = session.samples.captions_at(indexes)
    captions = drop_captions(kept, spec.caption_dropout, generator)
    condition = session.encode(captions, indexes)
    clean = clean.to(device)
    noise = Noise(drawn.target.to(device), drawn.seen.to(device))
    return Batch(
        indexes,
        clean,
        noise,
        times,
        captions,
        condition,
        noisy=objective.noisy(clean, noise.seen, times),
        target=objective.target(clean, noise.target, times),
    )
