"""What every source of samples must do, whatever holds them: the same batches, the same resume."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from st_shared.spec import DatasetSpec
from st_trainer.data.images import Images
from st_trainer.data.index import Peers
from st_trainer.data.locate import Place
from st_trainer.data.reading import Reading, read_datasets
from st_trainer.data.sampler import Cursor, ShuffledSampler

BUCKETS = ((8, 8), (4, 16))
DAMAGED = "03.png"


@dataclass(frozen=True)
class Picture:
    """One sample as it was before anything held it."""

    name: str
    content: bytes
    caption: str


@dataclass(frozen=True)
class Counted(Images):
    """Images that count what is decoded."""

    decoded: list[str] = field(default_factory=list, compare=False, repr=False)

    def read(self, content):
        self.decoded.append(content.name)
        return super().read(content)


@dataclass(frozen=True)
class Held:
    """Pictures in one of the formats."""

    place: Place
    options: dict[str, object] = field(default_factory=dict)

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec.model_validate({"path": str(self.place), **self.options})


Hold = Callable[[list[Picture]], Held]
"""Puts pictures into the format, in place of what was there."""


def pictures() -> list[Picture]:
    """Eleven of two shapes, one of them damaged."""
    made = []
    for number in range(11):
        name = f"{number:02d}.png"
        height, width = BUCKETS[number % 3 == 0]
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG")
        content = b"no picture" if name == DAMAGED else file.getvalue()
        made.append(Picture(name, content, f"noise {number}"))
    return made


def read(held: Held, root: Path) -> tuple[Reading, Counted]:
    """What a run makes of it."""
    medium = Counted(3, 8, 8, BUCKETS)
    reading = read_datasets(
        [held.spec], [held.place], medium, root=root, peers=Peers(threads=2), kept_bytes=2_000
    )
    return reading, medium


def batches(reading: Reading, cursor: Cursor | None = None) -> Iterator[tuple]:
    """Batches without end: values, captions, and the place after each."""
    samples = reading.samples
    sampler = ShuffledSampler(samples.repeats, 7, cursor, samples.buckets)
    while True:
        indexes = sampler.take(2)
        yield samples.values(indexes), samples.captions_at(indexes), sampler.cursor


def assert_equal(one: tuple, other: tuple) -> None:
    assert torch.equal(one[0], other[0])
    assert one[1:] == other[1:]


def check_batches(hold: Hold, folder: Hold, tmp_path: Path) -> None:
    """They are those of the same pictures in a folder, and those after a resume."""
    held = hold(pictures())
    ours, medium = read(held, tmp_path / "ours")
    theirs, _ = read(folder(pictures()), tmp_path / "theirs")
    assert len(ours.samples) == len(theirs.samples) == 10
    whole = batches(ours)
    expected = batches(theirs)
    for _ in range(7):
        batch = next(whole)
        assert_equal(batch, next(expected))
    medium.decoded.clear()
    again, resumed = read(held, tmp_path / "ours")
    assert resumed.decoded == []
    assert again.samples.sha256 == ours.samples.sha256
    rest = batches(again, batch[2])
    for _ in range(12):
        assert_equal(next(rest), next(whole))


def check_damage(hold: Hold, tmp_path: Path) -> None:
    """It is told and left out, and nothing else is."""
    reading, _ = read(hold(pictures()), tmp_path / "index")
    assert reading.skipped_count == len(reading.skipped) == 1
    assert "not a PNG, JPEG or WebP image" in reading.skipped[0].text


def check_changes(hold: Hold, tmp_path: Path) -> None:
    """A new caption and a mended picture are noticed."""
    before, _ = read(hold(pictures()), tmp_path / "index")
    changed = [
        Picture(each.name, pictures()[4].content, f"a new {each.caption} and more")
        if each.name == DAMAGED
        else each
        for each in pictures()
    ]
    after, _ = read(hold(changed), tmp_path / "index")
    assert after.skipped_count == 0
    assert after.samples.sha256 != before.samples.sha256
    captions = after.samples.captions_at(range(len(after.samples)))
    assert captions == [each.caption for each in changed]
