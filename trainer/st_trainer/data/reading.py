"""Reads the datasets of a run; what cannot be used is left out, with its reason."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.damaged import by_all, delete_damaged
from st_trainer.data.index import ALONE, Index, Peers, folder_of, make_index
from st_trainer.data.kept import Kept
from st_trainer.data.locate import Place
from st_trainer.data.medium import Medium
from st_trainer.data.reader import Reader
from st_trainer.data.samples import Part, Samples
from st_trainer.data.shard import Change, summed_up
from st_trainer.data.sources import make_source
from st_trainer.errors import BadDataError

MOST_REMARKS = 200
"""Files that cannot be used and are named one by one; the rest is counted."""
KEPT_BYTES = 1 << 30
"""Decoded samples are kept in memory up to this many bytes; beyond it they are read again."""


@dataclass(frozen=True)
class Remark:
    """What is worth telling about one file."""

    name: str
    text: str


@dataclass(frozen=True)
class Reading:
    """What was found in the datasets."""

    samples: Samples
    skipped: list[Remark]
    """The first of the files that cannot be used."""
    skipped_count: int
    """All of them."""
    changed: list[Change]
    """What was done to samples so that they fit."""


def read_datasets(
    datasets: Sequence[DatasetSpec],
    places: Sequence[Place],
    medium: Medium,
    kept_bytes: int = KEPT_BYTES,
    root: Path | None = None,
    peers: Peers = ALONE,
    cache: Path | None = None,
) -> Reading:
    """Every sample of ``medium`` in ``datasets``, which lie at ``places``.

    What is known of them is kept in an index below ``root``; without, for this reading alone.
    What is fetched lies below ``cache``; without, beside the index.

    Raises:
        BadDataError: not one sample can be used, or a dataset cannot be listed.
        TrainerError: a bucket does not answer.
    """
    if root is None:
        with tempfile.TemporaryDirectory(prefix="st-index-") as passing:  # what is mapped stays
            return read_datasets(datasets, places, medium, kept_bytes, Path(passing), peers, cache)
    kept = Kept(kept_bytes)
    readers = [
        Reader(make_source(dataset, place, medium, cache or root), dataset, medium, kept)
        for dataset, place in zip(datasets, places, strict=True)
    ]
    indexes = [make_index(reader, folder_of(reader, root), peers) for reader in readers]
    deleting = zip(datasets, readers, indexes, strict=True)
    deleted = [_deleted(*each, peers) for each in deleting]
    skipped = chain.from_iterable(map(_remarks, indexes, deleted))
    remarks = list(islice(skipped, MOST_REMARKS))
    count = sum(index.skipped_count for index in indexes)
    if not any(map(len, indexes)):
        raise BadDataError(_nothing_usable(places, remarks, count, medium))
    parts = list(map(Part, datasets, readers, indexes))
    changes = (
        each for index in indexes for shard in index.shards for each in shard.summary.changes
    )
    samples = Samples(parts, medium, _checksum(indexes))
    return Reading(samples, remarks, count, summed_up(changes))


def _deleted(dataset: DatasetSpec, reader: Reader, index: Index, peers: Peers) -> dict[str, str]:
    """What became of damaged files, by name, where the dataset says that they are to go.

    All processes have made their index by now: nobody lists files that go meanwhile.
    """
    if dataset.damaged == "keep":
        return {}
    return by_all(peers.gather(delete_damaged(index, reader)))


def _remarks(index: Index, deleted: Mapping[str, str]) -> Iterator[Remark]:
    for entry in index.skipped():
        end = f"; {deleted[entry.name]}" if entry.name in deleted else ""
        yield Remark(entry.name, entry.reason + end)


def _checksum(indexes: Sequence[Index]) -> str:
    """Over what each dataset holds, in order; the same wherever they lie."""
    return hashlib.sha256(" ".join(index.total for index in indexes).encode()).hexdigest()


def _nothing_usable(
    places: Sequence[Place], skipped: Sequence[Remark], count: int, medium: Medium
) -> str:
    told = ", ".join(map(str, places))
    if not skipped:
        return f"training.datasets: no {medium.formats} below {told}"
    first = skipped[0]
    return (
        f"training.datasets: none of the {count} {medium.noun}s below {told} can be used; "
        f"the first is {first.name}: {first.text}"
    )
