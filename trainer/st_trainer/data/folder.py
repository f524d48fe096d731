"""Reads folders of samples with captions; what cannot be used is left out, with its reason."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.conditioning import find_conditioning
from st_trainer.data.lyrics import with_lyrics
from st_trainer.data.masks import find_mask
from st_trainer.data.medium import Medium, ReadSample, UnreadableSampleError
from st_trainer.data.samples import Sample, Samples
from st_trainer.errors import BadDataError

MAX_CAPTION_BYTES = 16_384
KEPT_BYTES = 1 << 30
"""Decoded samples are kept in memory up to this many bytes; beyond it they are read again."""


@dataclass(frozen=True)
class Remark:
    """What is worth telling about one file."""

    name: str
    text: str


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
