"""Reads folders of samples with captions; what cannot be used is left out, with its reason."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.folder_source import FolderSource
from st_trainer.data.index import ALONE, Index, Peers, folder_of, make_index
from st_trainer.data.medium import Medium
from st_trainer.data.samples import KEPT_BYTES, Part, Samples
from st_trainer.data.shard import Change, summed_up
from st_trainer.errors import BadDataError

MOST_REMARKS = 200
"""Files that cannot be used and are named one by one; the rest is counted."""


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
    """The first of the files that cannot be used."""
    skipped_count: int
    """All of them."""
    changed: list[Change]
    """What was done to samples so that they fit."""


def read_folders(
    datasets: Sequence[DatasetSpec],
    folders: Sequence[Path],
    medium: Medium,
    kept_bytes: int = KEPT_BYTES,
    root: Path | None = None,
    peers: Peers = ALONE,
) -> Reading:
    """Every file of ``medium`` below ``folders`` that has a caption beside it.

    What is known of them is kept in an index below ``root``; without, for this reading alone.

    Raises:
        BadDataError: not one sample can be used, or a folder cannot be listed.
    """
    if root is None:
        with tempfile.TemporaryDirectory(prefix="st-index-") as passing:  # what is mapped stays
            return read_folders(datasets, folders, medium, kept_bytes, Path(passing), peers)
    sources = [
        FolderSource(folder, dataset, medium)
        for folder, dataset in zip(folders, datasets, strict=True)
    ]
    indexes = [make_index(source, folder_of(source, root), peers) for source in sources]
    skipped = chain.from_iterable(index.skipped() for index in indexes)
    remarks = [Remark(entry.name, entry.reason) for entry in islice(skipped, MOST_REMARKS)]
    count = sum(index.skipped_count for index in indexes)
    if not any(map(len, indexes)):
        raise BadDataError(_nothing_usable(folders, remarks, count, medium))
    parts = list(map(Part, datasets, sources, indexes))
    changes = (
        each for index in indexes for shard in index.shards for each in shard.summary.changes
    )
    samples = Samples(parts, medium, _checksum(indexes), kept_bytes)
    return Reading(samples, remarks, count, summed_up(changes))


def _checksum(indexes: Sequence[Index]) -> str:
    """Over what each dataset holds, in order; the same wherever they lie."""
    return hashlib.sha256(" ".join(index.total for index in indexes).encode()).hexdigest()


def _nothing_usable(
    folders: Sequence[Path], skipped: Sequence[Remark], count: int, medium: Medium
) -> str:
    places = ", ".join(map(str, folders))
    if not skipped:
        return f"training.datasets: no {medium.formats} below {places}"
    first = skipped[0]
    return (
        f"training.datasets: none of the {count} {medium.noun}s below {places} can be used; "
        f"the first is {first.name}: {first.text}"
    )
