"""Draws samples: the steps of the objective from noise to clean, with guidance."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from st_shared.spec.families import FAMILIES
from st_shared.spec.validation import PromptSpec, ValidationSpec, size_of
from st_trainer.data.buckets import Size
from st_trainer.data.conditioning import read_conditioning, size_read
from st_trainer.data.content import Content
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import Shape
from st_trainer.families.control import CONTROL
from st_trainer.families.family import REFERENCE, Condition, Denoiser, Guide
from st_trainer.families.first_frame import Beginning, FromPicture, told_of

Strengthened = Callable[[float], AbstractContextManager[None]]
"""While it lasts, what is trained counts so many times."""

_AT_ONCE, _PIXELS_AT_ONCE = 64, 2**20
"""Pictures that pass through the model together: at most so many, and at most so many pixels."""


@torch.no_grad()
def draw(denoiser: Denoiser, captions: Sequence[str], settings: ValidationSpec) -> Tensor:
    """One sample a caption, ``(B, C, ...)``, on the CPU: bytes, or floats -1 to 1 of sounds.

    The noise of each sample depends on ``settings.seed`` and its place in ``captions`` alone.
    """
    return torch.stack(draw_prompts(denoiser, [PromptSpec(prompt=c) for c in captions], settings))


@torch.no_grad()
def draw_prompts(
    denoiser: Denoiser,
    prompts: Sequence[PromptSpec],
    settings: ValidationSpec,
    size: Size | None = None,
    strengthened: Strengthened | None = None,
) -> list[Tensor]:
    """One sample a prompt, ``(C, ...)``, as ``draw`` gives them, at ``size`` (height, width).

    The noise of a prompt without a seed depends on ``settings.seed`` and its place alone. A prompt
    with a resolution is drawn at that.
    """
    drawn: dict[int, Tensor] = {}
    for like, places in _alike(prompts, size, denoiser).items():
        noise = _noise(denoiser, prompts, places, settings.seed, like.size)
        guidance = settings.guidance if like.guidance is None else like.guidance
        own = settings.model_copy(update={"guidance": guidance})
        with strengthened(like.strength) if strengthened else nullcontext():
            for part in _parts(len(places), _at_once(denoiser, like.size)):
                chosen = [prompts[place] for place in places[part]]
                found = _draw_together(denoiser, chosen, noise[part], own, like)
                drawn |= zip(places[part], found, strict=True)
    return [drawn[place] for place in range(len(prompts))]


@dataclass(frozen=True)
class _Like:
    """What prompts have in common that pass through the model together."""

    size: Size | None
    guidance: float | None
    strength: float
    has_negative: bool
    picture: Size | None
    """Of the picture beside each; None: there is none."""


def _alike(
    prompts: Sequence[PromptSpec], size: Size | None, denoiser: Denoiser
) -> dict[_Like, list[int]]:
    """Places of prompts that may pass through the model together."""
    found: dict[_Like, list[int]] = {}
    for place, each in enumerate(prompts):
        own = size_of(each.resolution) if each.resolution else size
        like = _Like(
            own,
            each.guidance,
            1.0 if each.adapter_strength is None else each.adapter_strength,
            each.negative is not None,
            picture_size(each, denoiser, own) if each.conditioning else None,
        )
        found.setdefault(like, []).append(place)
    return found


def _noise(
    denoiser: Denoiser,
    prompts: Sequence[PromptSpec],
    places: list[int],
    seed: int,
    size: Size | None,
) -> Tensor:
    """The noise of the prompts at ``places``, ``(B, C, ...)``."""
    shape = latent_shape(denoiser, size)
    by_place = starting_noise(max(places) + 1, shape, seed)
    found = []
    for place in places:
        own = prompts[place].seed
        found.append(by_place[place] if own is None else starting_noise(1, shape, own)[0])
    return torch.stack(found)


def _draw_together(
    denoiser: Denoiser,
    prompts: Sequence[PromptSpec],
    noise: Tensor,
    settings: ValidationSpec,
    like: _Like,
) -> Tensor:
    """Samples ``(B, C, ...)`` of prompts that are alike."""
    latents = denoise(
        denoiser,
        [each.prompt for each in prompts],
        noise,
        settings,
        pictures(prompts, denoiser, like.picture) if like.picture else None,
        negatives=[str(each.negative) for each in prompts] if like.has_negative else None,
        size=like.size,
    )
    values = denoiser.samples(latents).cpu()
    return values.float().clamp(-1, 1) if denoiser.medium.kind == "audio" else as_bytes(values)


def _at_once(denoiser: Denoiser, size: Size | None) -> int:
    """Samples that pass through the model together."""
    if denoiser.medium.kind != "image":
        return 1
    height, width = size or denoiser.sample_shape[-2:]
    return min(max(_PIXELS_AT_ONCE // (height * width), 1), _AT_ONCE)


def latent_shape(denoiser: Denoiser, size: Size | None) -> Shape:
    """Shape ``(C, ...)`` of the latents of a sample of ``size``; none: of the model's own."""
    own = denoiser.latent_shape
    if size is None:
        return own
    sides = zip(size, own[-2:], denoiser.sample_shape[-2:], strict=True)
    return (*own[:-2], *(side * latent // pixels for side, latent, pixels in sides))


def picture_size(prompt: PromptSpec, denoiser: Denoiser, size: Size | None) -> Size:
    """The size that the picture beside a sample of ``size`` is brought to; none: the model's own.

    It is that of the sample, or of a model that edits the nearest to the picture's own aspect.

    Raises:
        BadDataError: it cannot be read.
    """
    height, width = size or denoiser.sample_shape[-2:]
    medium, shape = denoiser.medium, (*denoiser.sample_shape[:-2], height, width)
    return size_read(_picture(prompt), medium.sizes_beside(shape, strict=False))


def pictures(prompts: Sequence[PromptSpec], denoiser: Denoiser, size: Size) -> Condition:
    """What samples are drawn with beside their captions: conditioning pictures of one ``size``.

    Raises:
        BadDataError: one cannot be read.
    """
    read = torch.stack([read_conditioning(_picture(each), size) for each in prompts])
    if isinstance(denoiser.family, FromPicture):
        return told_of(denoiser, Beginning(read, denoiser.sample_shape[1]))
    name = REFERENCE if FAMILIES[denoiser.family.name].edits else CONTROL
    return {name: denoiser.control(read)}


def _picture(prompt: PromptSpec) -> Content:
    return Content.of_file(Path(str(prompt.conditioning)))


def starting_noise(count: int, shape: Shape, seed: int) -> Tensor:
    """Standard normal noise ``(count, C, ...)``; a larger count begins with the same samples."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(count)])


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    captions: Sequence[str],
    noise: Tensor,
    settings: ValidationSpec,
    told: Condition | None = None,
    *,
    negatives: Sequence[str] | None = None,
    size: Size | None = None,
) -> Tensor:
    """Latents ``(B, C, ...)`` reached from standard normal ``noise`` along the sampler's path.

    ``told`` is what the model is told beside the captions, with guidance and without;
    ``negatives`` are captions that guidance leads away from, ``size`` is that of the samples.
    """
    objective, device = denoiser.objective, denoiser.device
    guidance = guidance_of(denoiser, settings)
    guide = denoiser.family.guide(denoiser.module, guidance)
    against = negatives or [] if guide else []
    texts = [*captions, *against]  # together, so that all are padded to one length
    every = _condition(denoiser, texts, guidance, size)
    condition = {name: each[: len(captions)] for name, each in every.items()}
    condition |= _to(told or {}, device)
    null = _to(denoiser.null(condition), device) if guide else {}
    if against:
        null |= {name: each[len(captions) :] for name, each in every.items()}
    tokens = denoiser.tokens(noise)
    path = objective.path(settings.sampler_steps, tokens)
    latents = objective.start(noise.to(device), tokens)
    for time, following in pairwise(path):
        times = time.to(device, _dtype_of_times(path)).expand(len(captions))
        answer = guided(denoiser, latents, times, (condition, null), guide)
        latents = objective.step(latents, answer, time, following)
    return latents


def guidance_of(denoiser: Denoiser, settings: ValidationSpec) -> float:
    """The guidance that is asked for, or what suits the family."""
    usual = denoiser.family.usual_guidance
    return usual if settings.guidance is None else settings.guidance


def as_bytes(values: Tensor) -> Tensor:
    """Values -1 to 1 as bytes 0 to 255; what lies outside is clipped."""
    return ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def guided(
    denoiser: Denoiser,
    latents: Tensor,
    times: Tensor,
    conditions: tuple[Condition, Condition],
    guide: Guide | None,
) -> Tensor:
    """Answer pushed away from the caption-less one, or the answer to the caption alone.

    ``conditions`` holds the captions and, where there is a ``guide``, the null captions.
    """
    condition, null = conditions
    if guide is None:
        return denoiser.predict(latents, times, condition)
    both = {name: torch.cat([condition[name], null[name]]) for name in condition}
    found = denoiser.predict(torch.cat([latents, latents]), times.repeat(2), both)
    with_caption, without = found.chunk(2)
    return guide(with_caption, without)


def _condition(
    denoiser: Denoiser, captions: Sequence[str], guidance: float, size: Size | None
) -> Condition:
    """The captions, and for a distilled model its guidance."""
    facts = [SampleFacts.whole(*size)] * len(captions) if size else None
    condition = _to(denoiser.encode(captions, facts), denoiser.device)
    if denoiser.family.is_distilled:
        condition["guidance"] = torch.full_like(condition["guidance"], guidance)
    return condition


def _dtype_of_times(path: Tensor) -> torch.dtype:
    """Whole steps stay whole; the rest is as exact as the model."""
    return torch.float32 if path.is_floating_point() else path.dtype


def _to(condition: Condition, device: torch.device) -> Condition:
    return {name: tensor.to(device) for name, tensor in condition.items()}


def _parts(count: int, at_once: int) -> Iterator[slice]:
    for start in range(0, count, at_once):
        yield slice(start, start + at_once)
