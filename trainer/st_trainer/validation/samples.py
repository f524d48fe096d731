"""Draws the prompts of a run and leaves files: grids of pictures, videos, sounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from st_shared.durable import move_durably
from st_shared.spec.validation import PromptSpec, ValidationSpec, size_of
from st_trainer.data.buckets import Size
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos
from st_trainer.families.family import Denoiser
from st_trainer.journal import Journal
from st_trainer.pictures.grid import sample_grid
from st_trainer.recordings import write_sound, write_video
from st_trainer.run_folder import RunFolder
from st_trainer.sampling import Strengthened, draw_prompts, guidance_of


@dataclass(frozen=True)
class Drawn:
    """One sample."""

    place: int
    """That of its prompt in the list of all."""
    prompt: PromptSpec
    values: NDArray[Any]
    """Bytes ``(C, H, W)`` or ``(C, F, H, W)``, or floats -1 to 1 ``(C, L)`` of a sound."""
    size: Size | None
    """Height and width where they are not the model's own."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        told = f", {self.size[1]}x{self.size[0]}" if self.size else ""
        name = f"{self.prompt.name}: " if self.prompt.name else ""
        return f"{name}{self.prompt.prompt}{told}"


def draw_all(
    denoiser: Denoiser, settings: ValidationSpec, strengthened: Strengthened | None = None
) -> list[Drawn]:
    """Every prompt of ``settings`` at every size that is asked for, prompt by prompt."""
    own = _own_size(denoiser)
    found: list[Drawn] = []
    for number, resolution in enumerate(settings.resolutions or [None]):
        size = size_of(resolution) if resolution else None
        # One with a size of its own is drawn at that, once.
        wanted = [n for n, each in enumerate(settings.prompts) if not (number and each.resolution)]
        prompts = [settings.prompts[place] for place in wanted]
        asked = None if size == own else size
        drawn = draw_prompts(denoiser, prompts, settings, asked, strengthened)
        for place, prompt, values in zip(wanted, prompts, drawn, strict=True):
            shape = (values.shape[-2], values.shape[-1])
            told = None if own is None or shape == own else shape
            found.append(Drawn(place, prompt, values.numpy(), told))
    return sorted(found, key=lambda each: each.place)


def _own_size(denoiser: Denoiser) -> Size | None:
    """Height and width of the model's own samples; none of sounds."""
    if denoiser.medium.kind == "audio":
        return None
    *_, height, width = denoiser.sample_shape
    return height, width


def write_samples(
    drawn: Sequence[Drawn],
    denoiser: Denoiser,
    settings: ValidationSpec,
    folder: RunFolder,
    step: int,
    title: str,
) -> Iterator[tuple[Path, list[str]]]:
    """Write them below ``folder.samples``; gives each file with its prompts, once it is there."""
    if denoiser.medium.kind == "image":
        for size in dict.fromkeys(each.size for each in drawn):
            chosen = [each for each in drawn if each.size == size]
            path = folder.sample(step, size)
            write_picture(path, grid_of(chosen, denoiser, settings, title))
            yield path, [each.prompt.prompt for each in chosen]
        return
    for each in drawn:
        path = folder.sample_of(step, each.place, suffix_of(denoiser, settings), each.size)
        write_recording(path, each.values, denoiser)
        yield path, [each.prompt.prompt]


def tell_samples(
    written: Iterator[tuple[Path, list[str]]], folder: RunFolder, journal: Journal, step: int
) -> None:
    """Tell of each file once it is there."""
    for path, prompts in written:
        journal.sample(step, folder.relative(path), prompts)


def grid_of(
    drawn: Sequence[Drawn], denoiser: Denoiser, settings: ValidationSpec, title: str
) -> Image.Image:
    """Pictures of one size in a grid, with a line that says how they were drawn."""
    guidance = guidance_of(denoiser, settings)
    how = f"{settings.sampler_steps} Euler steps, guidance {guidance:g}, seed {settings.seed}"
    return sample_grid(
        np.stack([each.values for each in drawn]),
        [each.prompt.prompt for each in drawn],
        title=f"{title}  ·  {how}",
        columns=settings.columns,
        scale=settings.scale,
    )


def suffix_of(denoiser: Denoiser, settings: ValidationSpec) -> str:
    """End of the name of a sample's file."""
    kind = denoiser.medium.kind
    if kind == "image":
        return ".png"
    return f".{settings.video_format if kind == 'video' else settings.audio_format}"


def write_recording(path: Path, values: NDArray[Any], denoiser: Denoiser) -> None:
    """Write one video or sound."""
    medium = denoiser.medium
    if isinstance(medium, Videos):
        write_video(path, values, medium.rate)
    elif isinstance(medium, Sounds):
        write_sound(path, values, medium.rate)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG at ``path``, whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    picture.save(aside, format="PNG", optimize=True)
    move_durably(aside, path)


def as_picture(values: NDArray[Any]) -> Image.Image:
    """Bytes ``(C, H, W)`` as a picture."""
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))
