"""Reads folders of images with captions; what cannot be used is left out, with its reason."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.conditioning import find_conditioning, read_conditioning
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import IMAGE_SUFFIXES, ReadImage, UnreadableSampleError, read_image
from st_trainer.data.masks import find_mask, read_mask
from st_trainer.errors import BadDataError

MAX_CAPTION_BYTES = 16_384
KEPT_BYTES = 1 << 30
"""Decoded images are kept in memory up to this many bytes; beyond it they are read again."""


@dataclass(frozen=True)
class Sample:
    """One image and its caption."""

    name: str
    """Path below the folder of the dataset."""
    path: Path
    caption: str
    repeats: int
    pixels: NDArray[np.uint8] | None
    """``(C, H, W)``, 0 to 255, when it is kept in memory."""
    facts: SampleFacts
    mask: Path | None = None
    """Grey picture that says how much each place counts."""
    regularisation: bool = False
    conditioning: Path | None = None
    """Picture that a ControlNet reads."""


@dataclass(frozen=True)
class Remark:
    """What is worth telling about one file."""

    name: str
    text: str


class Samples:
    """Everything usable in the datasets of a run, in an order that is always the same."""

    def __init__(self, samples: Sequence[Sample], size: int, channels: int, sha256: str) -> None:
        self._samples = samples
        self._size, self._channels = size, channels
        self.sha256 = sha256
        """Checksum over names, captions, pixels and facts: a resumed run must find the same."""

    def __len__(self) -> int:
        """Number of samples, each counted once."""
        return len(self._samples)

    @property
    def captions(self) -> list[str]:
        """The caption of each sample."""
        return [sample.caption for sample in self._samples]

    @property
    def repeats(self) -> list[int]:
        """How often each sample is seen in an epoch."""
        return [sample.repeats for sample in self._samples]

    def captions_at(self, indexes: Sequence[int]) -> list[str]:
        """Captions of the samples at ``indexes``."""
        return [self._samples[index].caption for index in indexes]

    def names(self, indexes: Sequence[int]) -> list[str]:
        """File names of the samples at ``indexes``."""
        return [self._samples[index].name for index in indexes]

    def pixels(self, indexes: Sequence[int]) -> Tensor:
        """Images at ``indexes``, ``(B, C, H, W)``, -1 to 1."""
        stacked = np.stack([self._pixels(self._samples[index]) for index in indexes])
        return torch.from_numpy(stacked).float() / 127.5 - 1

    def facts(self, indexes: Sequence[int]) -> list[SampleFacts]:
        """How the pixels at ``indexes`` came out of their files."""
        return [self._samples[index].facts for index in indexes]

    def masks(self, indexes: Sequence[int]) -> Tensor:
        """Masks at ``indexes``, ``(B, 1, H, W)``, 0 to 1; 1 everywhere where there is none."""
        chosen = [self._samples[index].mask for index in indexes]
        return torch.stack([read_mask(mask, self._size) for mask in chosen])

    def conditioning(self, indexes: Sequence[int]) -> Tensor:
        """Conditioning pictures at ``indexes``, ``(B, 3, H, W)``, 0 to 1."""
        chosen = [self._samples[index].conditioning for index in indexes]
        return torch.stack([read_conditioning(path, self._size) for path in chosen])

    def regularised(self, indexes: Sequence[int]) -> list[bool]:
        """Which samples at ``indexes`` are of a dataset for prior regularisation."""
        return [self._samples[index].regularisation for index in indexes]

    def _pixels(self, sample: Sample) -> NDArray[np.uint8]:
        if sample.pixels is not None:
            return sample.pixels
        try:
            return read_image(sample.path, self._size, self._channels).pixels
        except UnreadableSampleError as error:
            raise BadDataError(f"{sample.name} changed during the run: {error}") from None


@dataclass(frozen=True)
class Reading:
    """What was found in the folders."""

    samples: Samples
    skipped: list[Remark]
    changed: list[Remark]


def read_folders(
    datasets: Sequence[DatasetSpec],
    folders: Sequence[Path],
    size: int,
    channels: int,
    kept_bytes: int = KEPT_BYTES,
) -> Reading:
    """Read every image below ``folders`` that has a caption beside it.

    Raises:
        BadDataError: not one sample can be used.
    """
    samples: list[Sample] = []
    skipped: list[Remark] = []
    changed: list[Remark] = []
    digest = hashlib.sha256()
    for dataset, folder in zip(datasets, folders, strict=True):
        conditions = folder / dataset.conditioning if dataset.conditioning else None
        for path in image_files(folder, dataset.mask_suffix, conditions):
            name = path.relative_to(folder).as_posix()
            try:
                caption = read_caption(path.with_suffix(dataset.caption_suffix))
                image = read_image(path, size, channels)
                mask = find_mask(path, dataset.mask_suffix, size)
                conditioning = find_conditioning(name, conditions, size)
            except UnreadableSampleError as error:
                skipped.append(Remark(name, str(error)))
                continue
            changed += [Remark(name, change) for change in image.changes]
            _add(digest, name, caption, image)
            for beside in filter(None, (mask, conditioning)):
                digest.update(beside.read_bytes())
            kept_bytes -= image.pixels.nbytes
            kept = image.pixels if kept_bytes >= 0 else None
            rest = (mask, dataset.regularisation, conditioning)
            samples.append(Sample(name, path, caption, dataset.repeats, kept, image.facts, *rest))
    if not samples:
        raise BadDataError(_nothing_usable(folders, skipped))
    return Reading(Samples(samples, size, channels, digest.hexdigest()), skipped, changed)


def image_files(
    folder: Path, mask_suffix: str | None = None, without: Path | None = None
) -> Iterator[Path]:
    """Image files below ``folder``, sorted by path; hidden ones and masks are left out.

    So is what lies in the folder ``without``.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders if not name.startswith(".") and Path(parent, name) != without
        ]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if mask_suffix:
        images = [path for path in images if not path.name.endswith(mask_suffix)]
    yield from sorted(images, key=lambda path: path.relative_to(folder).as_posix())


def read_caption(path: Path) -> str:
    """The caption in the text file ``path``, on one line.

    Raises:
        UnreadableSampleError: the file is missing, empty, too long or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CAPTION_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableSampleError(f"no caption: {path.name} is missing") from None
    except OSError as error:
        raise UnreadableSampleError(f"caption cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CAPTION_BYTES:
        raise UnreadableSampleError(f"{path.name} is longer than {MAX_CAPTION_BYTES} bytes")
    try:
        caption = " ".join(raw.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        raise UnreadableSampleError(f"{path.name} is not UTF-8 text") from None
    if not caption:
        raise UnreadableSampleError(f"{path.name} is empty")
    return caption


def _add(digest: "hashlib._Hash", name: str, caption: str, image: ReadImage) -> None:
    facts = repr(image.facts).encode()
    for part in (os.fsencode(name), caption.encode(), image.pixels.tobytes(), facts):
        digest.update(len(part).to_bytes(8, "big") + part)


def _nothing_usable(folders: Sequence[Path], skipped: Sequence[Remark]) -> str:
    places = ", ".join(map(str, folders))
    if not skipped:
        return f"training.datasets: no PNG, JPEG or WebP image below {places}"
    first = skipped[0]
    return (
        f"training.datasets: none of the {len(skipped)} images below {places} can be used; "
        f"the first is {first.name}: {first.text}"
    )
