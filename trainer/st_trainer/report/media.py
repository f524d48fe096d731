"""Small copies of samples in the page itself, as many as there is room for."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from st_trainer.validation.previews import Preview, PreviewSet

_TYPES = {"webp": "image/webp", "mp3": "audio/mpeg", "wav": "audio/wav"}
_MOST_BYTES = 12_000_000
"""Of samples and sweeps each; of steps in the middle some are left out beyond that."""
_MOST_STEPS = 24


@dataclass(frozen=True)
class Shown:
    """One sample in the page."""

    column: str
    """The step, or what it was drawn with."""
    picture: str
    """A ``data:`` address."""
    sound: str | None


@dataclass(frozen=True)
class Row:
    """One prompt, and what was drawn of it."""

    prompt: str
    samples: list[Shown]


def samples_by_step(sets: Sequence[PreviewSet]) -> tuple[list[Row], int]:
    """A row for each prompt, its samples by step; and how many steps were left out."""
    every = [each for each in sets if each.kind == "samples"]
    kept = _fitting(every)
    rows: dict[str, list[Shown]] = {}
    for each in kept:
        for preview in each.previews:
            shown = _shown(each, preview, step_label(each.step))
            rows.setdefault(preview.row, []).append(shown)
    return [Row(*pair) for pair in rows.items()], len(every) - len(kept)


def sweeps(sets: Sequence[PreviewSet]) -> list[tuple[int, list[Row]]]:
    """The newest sweeps, each with its step and a row for each prompt."""
    found = []
    for each in _fitting([each for each in sets if each.kind == "sweep"]):
        rows: dict[str, list[Shown]] = {}
        for preview in each.previews:
            rows.setdefault(preview.row, []).append(_shown(each, preview, preview.column))
        found.append((each.step, [Row(*pair) for pair in rows.items()]))
    return found


def step_label(step: int) -> str:
    """A step in words."""
    return "before training" if step == 0 else f"step {step:,}"


def _fitting(sets: Sequence[PreviewSet]) -> list[PreviewSet]:
    """The first, the last, and as many evenly chosen ones between as there is room for."""
    count = min(len(sets), _MOST_STEPS)
    while count > 1:
        gap = (len(sets) - 1) / (count - 1)
        chosen = [sets[round(number * gap)] for number in range(count)]
        if sum(map(_size, chosen)) <= _MOST_BYTES:
            return chosen
        count -= 1
    return list(sets[-1:])


def _size(each: PreviewSet) -> int:
    return sum(path.stat().st_size for path in each.folder.iterdir())


def _shown(each: PreviewSet, preview: Preview, column: str) -> Shown:
    sound = _address(each, preview.sound) if preview.sound else None
    return Shown(column, _address(each, preview.picture), sound)


def _address(each: PreviewSet, name: str) -> str:
    content = base64.b64encode((each.folder / name).read_bytes()).decode()
    return f"data:{_TYPES[name.rpartition('.')[2]]};base64,{content}"
