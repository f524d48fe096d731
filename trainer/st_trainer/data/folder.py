"""Reads folders of samples with captions; what cannot be used is left out, with its reason."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.buckets import Size
from st_trainer.data.conditioning import find_conditioning, read_conditioning
from st_trainer.data.facts import SampleFacts
from st_trainer.data.lyrics import with_lyrics
from st_trainer.data.masks import find_mask, read_mask
from st_trainer.data.medium import Medium, ReadSample, Shape, UnreadableSampleError
from st_trainer.errors import BadDataError

MAX_CAPTION_BYTES = 16_384
KEPT_BYTES = 1 << 30
"""Decoded samples are kept in memory up to this many bytes; beyond it they are read again."""


@dataclass(frozen=True)
class Sample:
    """One file and its caption."""

    name: str
    """Path below the folder of the dataset."""
    path: Path
    caption: str
    repeats: int
    shape: Shape
    """Of its values: its bucket."""
    facts: SampleFacts
    values: NDArray[Any] | None = None
    """As the medium reads it, when it is kept in memory."""
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

    def __init__(self, samples: Sequence[Sample], medium: Medium, sha256: str) -> None:
        self._samples = samples
        self._medium = medium
        self.sha256 = sha256
        """Checksum over names, captions, content and facts: a resumed run must find the same."""

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

    @property
    def shapes(self) -> list[Shape]:
        """The bucket of each sample: its shape. Samples of one batch must share it."""
        return [sample.shape for sample in self._samples]

    def captions_at(self, indexes: Sequence[int]) -> list[str]:
        """Captions of the samples at ``indexes``."""
        return [self._samples[index].caption for index in indexes]

    def names(self, indexes: Sequence[int]) -> list[str]:
        """File names of the samples at ``indexes``."""
        return [self._samples[index].name for index in indexes]

    def values(self, indexes: Sequence[int]) -> Tensor:
        """Samples at ``indexes``, all of one bucket, ``(B, C, ...)``, -1 to 1."""
        stacked = np.stack([self._values(self._samples[index]) for index in indexes])
        tensor = torch.from_numpy(stacked)
        return tensor if tensor.is_floating_point() else tensor.float() / 127.5 - 1

    def facts(self, indexes: Sequence[int]) -> list[SampleFacts]:
        """How the values at ``indexes`` came out of their files."""
        return [self._samples[index].facts for index in indexes]

    def masks(self, indexes: Sequence[int]) -> Tensor:
        """Masks at ``indexes``, ``(B, 1, H, W)``, 0 to 1; 1 everywhere where there is none."""
        return torch.stack([read_mask(each.mask, self._area(each)) for each in self._at(indexes)])

    def conditioning(self, indexes: Sequence[int]) -> Tensor:
        """Conditioning pictures at ``indexes``, ``(B, 3, H, W)``, 0 to 1."""
        return torch.stack(
            [read_conditioning(each.conditioning, self._area(each)) for each in self._at(indexes)]
        )

    def regularised(self, indexes: Sequence[int]) -> list[bool]:
        """Which samples at ``indexes`` are of a dataset for prior regularisation."""
        return [self._samples[index].regularisation for index in indexes]

    def _at(self, indexes: Sequence[int]) -> list[Sample]:
        return [self._samples[index] for index in indexes]

    def _area(self, sample: Sample) -> Size:
        """Height and width of what lies beside ``sample``."""
        return self._medium.area(sample.shape)

    def _values(self, sample: Sample) -> NDArray[Any]:
        if sample.values is not None:
            return sample.values
        try:
            values = self._medium.read(sample.path).values
        except UnreadableSampleError as error:
            raise BadDataError(f"{sample.name} changed during the run: {error}") from None
        if values.shape != sample.shape:
            raise BadDataError(f"{sample.name} changed during the run: it has another aspect")
        return values


@dataclass(frozen=True)
class Reading:
    """What was found in the folders."""

    samples: Samples
    skipped: list[Remark]
    changed: list[Remark]


def read_folders(
    datasets: Sequence[DatasetSpec],
    folders: Sequence[Path],
    medium: Medium,
    kept_bytes: int = KEPT_BYTES,
) -> Reading:
    """Read every file of ``medium`` below ``folders`` that has a caption beside it.

    Raises:
        BadDataError: not one sample can be used.
    """
    samples: list[Sample] = []
    skipped: list[Remark] = []
    changed: list[Remark] = []
    digest = hashlib.sha256()
    for dataset, folder in zip(datasets, folders, strict=True):
        for path in _files(folder, dataset, medium):
            name = path.relative_to(folder).as_posix()
            try:
                read, sample = _read(path, folder, dataset, medium)
            except UnreadableSampleError as error:
                skipped.append(Remark(name, str(error)))
                continue
            changed += [Remark(name, change) for change in read.changes]
            _add(digest, sample, read)
            kept_bytes -= read.values.nbytes
            samples.append(replace(sample, values=read.values) if kept_bytes >= 0 else sample)
    if not samples:
        raise BadDataError(_nothing_usable(folders, skipped, medium))
    return Reading(Samples(samples, medium, digest.hexdigest()), skipped, changed)


def _read(
    path: Path, folder: Path, dataset: DatasetSpec, medium: Medium
) -> tuple[ReadSample, Sample]:
    """The sample in the file ``path`` of ``dataset``, with what lies beside it."""
    name = path.relative_to(folder).as_posix()
    caption = read_caption(path.with_suffix(dataset.caption_suffix))
    if medium.kind == "audio":
        caption = with_lyrics(caption, path)
    read = medium.read(path)
    shape = read.values.shape
    return read, Sample(
        name,
        path,
        caption,
        dataset.repeats,
        shape,
        read.facts,
        mask=find_mask(path, dataset.mask_suffix, medium, shape),
        regularisation=dataset.regularisation,
        conditioning=find_conditioning(name, _conditions(folder, dataset), medium, shape),
    )


def _conditions(folder: Path, dataset: DatasetSpec) -> Path | None:
    return folder / dataset.conditioning if dataset.conditioning else None


def _files(folder: Path, dataset: DatasetSpec, medium: Medium) -> Iterator[Path]:
    conditions = _conditions(folder, dataset)
    return sample_files(folder, medium.suffixes, dataset.mask_suffix, conditions)


def sample_files(
    folder: Path,
    suffixes: frozenset[str],
    mask_suffix: str | None = None,
    without: Path | None = None,
) -> Iterator[Path]:
    """Files of ``suffixes`` below ``folder``, sorted by path, without hidden ones and masks.

    What lies in the folder ``without`` is left out too.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders if not name.startswith(".") and Path(parent, name) != without
        ]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    samples = [path for path in found if path.suffix.lower() in suffixes]
    if mask_suffix:
        samples = [path for path in samples if not path.name.endswith(mask_suffix)]
    yield from sorted(samples, key=lambda path: path.relative_to(folder).as_posix())


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


def _add(digest: "hashlib._Hash", sample: Sample, read: ReadSample) -> None:
    shape = str(sample.shape).encode()
    for part in (os.fsencode(sample.name), sample.caption.encode(), shape, read.identity):
        digest.update(len(part).to_bytes(8, "big") + part)
    for beside in filter(None, (sample.mask, sample.conditioning)):
        digest.update(beside.read_bytes())


def _nothing_usable(folders: Sequence[Path], skipped: Sequence[Remark], medium: Medium) -> str:
    places = ", ".join(map(str, folders))
    if not skipped:
        return f"training.datasets: no {medium.formats} below {places}"
    first = skipped[0]
    return (
        f"training.datasets: none of the {len(skipped)} {medium.noun}s below {places} can be used; "
        f"the first is {first.name}: {first.text}"
    )
