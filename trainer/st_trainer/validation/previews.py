"""Small copies of samples in the run folder, from which the report is made, also after a resume."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from st_shared.durable import write_whole
from st_trainer.data.medium import Medium
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos
from st_trainer.pictures.sound import sound_picture
from st_trainer.run_folder import step_name
from st_trainer.validation.samples import Drawn, as_picture

_INDEX = "set.json"
_SIDE = 320
"""Pixels of the longer side of a small copy, at most."""
_FRAMES = 24
"""Frames of a video in its small copy, at most."""
_SECONDS = 30
"""Of a sound in its small copy, at most."""
_QUALITY = 82
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

Kind = Literal["samples", "sweep"]


@dataclass(frozen=True)
class Preview:
    """One sample's small copy."""

    row: str
    """Its prompt."""
    column: str
    """What it was drawn with, such as a row of a sweep; empty: the model as it was."""
    picture: str
    """Name of its picture, a still or a moving one."""
    sound: str | None = None
    """Name of its sound."""


@dataclass(frozen=True)
class PreviewSet:
    """What was drawn at one step."""

    folder: Path
    kind: Kind
    step: int
    previews: list[Preview]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The set in ``folder``; none where it is incomplete."""
        try:
            document = json.loads((folder / _INDEX).read_bytes())
            previews = [Preview(**each) for each in document["previews"]]
            return cls(folder, document["kind"], document["step"], previews)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def preview_folder(previews: Path, kind: Kind, step: int) -> Path:
    """Where the set of ``kind`` of ``step`` lies."""
    return previews / f"{kind}-{step_name(step)}"


def preview_sets(previews: Path) -> list[PreviewSet]:
    """All whole sets, oldest first."""
    found = (PreviewSet.read(folder) for folder in previews.glob("*-step-*"))
    return sorted((each for each in found if each), key=lambda each: (each.step, each.kind))


def write_previews(
    previews: Path, kind: Kind, step: int, drawn: Sequence[tuple[str, Drawn]], medium: Medium
) -> None:
    """Keep small copies of ``drawn``, each with the name of its column."""
    folder = preview_folder(previews, kind, step)
    folder.mkdir(parents=True, exist_ok=True)
    told = [
        _write(folder, number, column, each, medium) for number, (column, each) in enumerate(drawn)
    ]
    document = {"kind": kind, "step": step, "previews": [asdict(each) for each in told]}
    write_whole(folder / _INDEX, json.dumps(document), synced=False)


def _write(folder: Path, number: int, column: str, drawn: Drawn, medium: Medium) -> Preview:
    picture, sound = f"{number:03d}.webp", None
    if isinstance(medium, Sounds):
        content = _encoded([sound_picture(drawn.values, medium.rate)], 0)
        sound = _write_sound(folder, number, drawn.values, medium.rate)
    elif isinstance(medium, Videos):
        frames = drawn.values.transpose(1, 0, 2, 3)
        chosen = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
        pause = round(1000 * len(frames) / medium.rate / len(chosen))
        content = _encoded([as_picture(frames[index]) for index in chosen], pause)
    else:
        content = _encoded([as_picture(drawn.values)], 0)
    write_whole(folder / picture, content, synced=False)
    return Preview(drawn.name, column, picture, sound)


def _encoded(frames: list[Image.Image], pause: int) -> bytes:
    """WebP, moving where there are several frames, ``pause`` milliseconds each."""
    small = [each.convert("RGB") for each in frames]
    for each in small:
        each.thumbnail((_SIDE, _SIDE))
    content = BytesIO()
    options: dict[str, Any] = {"quality": _QUALITY}
    if len(small) > 1:
        options |= {"save_all": True, "append_images": small[1:], "duration": pause, "loop": 0}
    small[0].save(content, "WEBP", **options)
    return content.getvalue()


def _write_sound(folder: Path, number: int, values: NDArray[Any], rate: int) -> str:
    """Its beginning, as MP3 where that knows the rate."""
    import soundfile  # noqa: PLC0415 -- only where there are sounds

    kind = "MP3" if rate in _MP3_RATES else "WAV"
    name = f"{number:03d}.{kind.lower()}"
    soundfile.write(folder / name, values.T[: _SECONDS * rate], rate, format=kind)
    return name
