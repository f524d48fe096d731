"""One file of an index: the entries of some thousand samples, in Arrow's IPC format.

The file is mapped, not read: memory holds only the pages that are looked at. Usable samples come
first, then the files that cannot be used, each part sorted by name. Beside the columns of
``_SCHEMA``, the schema's metadata ``st`` is a JSON document, ``Summary``.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from st_trainer.data.digests import CONTENT_BYTES
from st_trainer.data.entry import DIGEST_BYTES, STAMP_BYTES, Entry
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import Bucket
from st_trainer.errors import BadDataError

SUFFIX = ".arrow"
# In the order of how often they are looked at: a page that is mapped brings its neighbours along.
_SCHEMA = pa.schema(
    [
        ("bucket", pa.uint16()),  # place in Summary.buckets
        ("name", pa.binary()),  # as the file system has it
        ("captions", pa.list_(pa.string())),
        ("content", pa.binary(CONTENT_BYTES)),
        ("facts", pa.list_(pa.int64())),  # original size, crop and size, one behind the other
        ("conditioning", pa.binary(CONTENT_BYTES)),
        ("stamp", pa.binary(STAMP_BYTES)),
        ("digest", pa.binary(DIGEST_BYTES)),
        ("changes", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("damaged", pa.bool_()),
    ]
)
Column = Literal["content", "conditioning"]
"""Digests: of the values, or of the conditioning picture."""
_METADATA = b"st"
_MODULUS = 1 << 256


@dataclass(frozen=True)
class Change:
    """One kind of change that was made to samples so that they fit."""

    kind: str
    count: int
    name: str
    """The first sample that was changed so."""
    text: str
    """What was done to it."""


@dataclass
class Summary:
    """What is known of a shard without reading its columns."""

    usable: int
    """Rows that are samples; the others cannot be used."""
    first: str
    last: str
    """First and last of all names, hex of the file system's bytes."""
    total: str = ""
    """Sum of the samples' digests modulo 2^256, hex: the same however samples are divided."""
    buckets: list[tuple[list[int], int, list[list[int]]]] = field(default_factory=list)
    """Shape of the values, how many bytes they have, and sizes of references."""
    changes: list[Change] = field(default_factory=list)

    @classmethod
    def read(cls, document: bytes) -> Self:
        """The summary in a schema's metadata."""
        found = cls(**json.loads(document))
        found.changes = [Change(**each) for each in found.changes]  # type: ignore[arg-type]
        return found


def write_shard(path: Path, entries: Sequence[Entry]) -> None:
    """Put ``entries``, sorted by name, at ``path`` in one step."""
    usable = [entry for entry in entries if not entry.reason]
    rows = usable + [entry for entry in entries if entry.reason]
    numbers: dict[tuple[Bucket, int], int] = {}
    for entry in usable:
        numbers.setdefault((entry.bucket, entry.value_bytes), len(numbers))
    summary = Summary(
        len(usable),
        os.fsencode(entries[0].name).hex(),
        os.fsencode(entries[-1].name).hex(),
        total=f"{sum(int.from_bytes(entry.digest) for entry in usable) % _MODULUS:064x}",
        buckets=[
            (list(bucket.shape), count, list(map(list, bucket.references)))
            for bucket, count in numbers
        ],
        changes=summed_up(_changes(usable)),
    )
    columns: dict[str, list[Any]] = {
        "name": [os.fsencode(entry.name) for entry in rows],
        "stamp": [entry.stamp for entry in rows],
        "digest": [entry.digest for entry in rows],
        "content": [entry.content for entry in rows],
        "conditioning": [entry.conditioning for entry in rows],
        "bucket": [numbers.get((entry.bucket, entry.value_bytes), 0) for entry in rows],
        "facts": [_flat(entry.facts) for entry in rows],
        "captions": [list(entry.captions) for entry in rows],
        "changes": [list(map(_printable, entry.changes)) for entry in rows],
        "reason": [_printable(entry.reason) for entry in rows],
        "damaged": [entry.damaged for entry in rows],
    }
    schema = _SCHEMA.with_metadata({_METADATA: json.dumps(asdict(summary))})
    batch = pa.record_batch([pa.array(columns[each.name], each.type) for each in schema], schema)
    aside = path.with_name(f".{path.name}.{uuid4().hex}.partial")  # others may write the same
    with aside.open("wb") as file:
        with pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class Shard:
    """The entries of one file, mapped."""

    def __init__(self, path: Path) -> None:
        """Map the file at ``path``.

        Raises:
            BadDataError: it is damaged.
            FileNotFoundError: it is missing.
        """
        try:
            with pa.memory_map(os.fspath(path)) as mapped:
                self._batch = pa.ipc.open_file(mapped).get_batch(0)
            if not self._batch.schema.equals(_SCHEMA):
                raise BadDataError(_damaged(path, "its columns are others"))
            self.summary = Summary.read(self._batch.schema.metadata[_METADATA])
        except pa.ArrowInvalid as error:
            raise BadDataError(_damaged(path, str(error))) from None
        self._columns = {each.name: self._batch.column(each.name) for each in _SCHEMA}

    def __len__(self) -> int:
        """All rows, also those that cannot be used."""
        return int(self._batch.num_rows)

    @property
    def buckets(self) -> NDArray[np.uint16]:
        """The bucket of each sample, its place in ``summary.buckets``; mapped."""
        found: NDArray[np.uint16] = self._columns["bucket"].to_numpy()[: self.summary.usable]
        return found

    @cached_property
    def numbered(self) -> list[Bucket]:
        """What each number of ``buckets`` stands for."""
        return [
            Bucket(tuple(shape), tuple((height, width) for height, width in references))
            for shape, _, references in self.summary.buckets
        ]

    @property
    def names(self) -> list[str]:
        """The names of all rows."""
        return [os.fsdecode(name) for name in self._columns["name"].to_pylist()]

    def name(self, row: int) -> str:
        """The name in ``row``."""
        return os.fsdecode(self._columns["name"][row].as_py())

    def captions_of(self, row: int) -> tuple[str, ...]:
        """The captions in ``row``."""
        return tuple(self._columns["captions"][row].as_py())

    def captions(self) -> Iterator[str]:
        """The captions of the samples."""
        for captions in self._columns["captions"].slice(0, self.summary.usable):
            yield from captions.as_py()

    def skipped(self) -> Iterator[Entry]:
        """The files that cannot be used."""
        return map(self.entry, range(self.summary.usable, len(self)))

    def stamp(self, row: int) -> bytes:
        """The stamp in ``row``."""
        return bytes(self._columns["stamp"][row].as_py())

    def content_of(self, row: int, column: Column) -> bytes:
        """What tells the values in ``row``, or its conditioning picture, from all others."""
        return bytes(self._columns[column][row].as_py())

    def contents(self, column: Column) -> list[bytes]:
        """``content`` or ``conditioning`` of all samples."""
        found: list[bytes] = self._columns[column].slice(0, self.summary.usable).to_pylist()
        return found

    def facts(self, row: int) -> SampleFacts:
        """What is known of the sample in ``row``."""
        numbers = self._columns["facts"][row].as_py()
        third = len(numbers) // 3
        parts = (tuple(numbers[part * third :][:third]) for part in range(3))
        return SampleFacts(*parts)

    def entry(self, row: int) -> Entry:
        """All that is kept in ``row``."""
        value = {name: column[row].as_py() for name, column in self._columns.items()}
        name = os.fsdecode(value["name"])
        if value["reason"]:
            return Entry(name, value["stamp"], value["reason"], value["damaged"])
        bucket, size = self.numbered[value["bucket"]], self.summary.buckets[value["bucket"]][1]
        return Entry(
            name,
            value["stamp"],
            captions=tuple(value["captions"]),
            shape=bucket.shape,
            references=bucket.references,
            value_bytes=size,
            facts=self.facts(row),
            digest=value["digest"],
            content=value["content"],
            conditioning=value["conditioning"],
            changes=tuple(value["changes"]),
        )


def summed_up(changes: Iterator[Change]) -> list[Change]:
    """One change of each kind, with the count of all; the first names the sample."""
    found: dict[str, Change] = {}
    for each in changes:
        known = found.get(each.kind)
        count = each.count + (known.count if known else 0)
        first = known or each
        found[each.kind] = Change(each.kind, count, first.name, first.text)
    return list(found.values())


def _changes(entries: Sequence[Entry]) -> Iterator[Change]:
    for entry in entries:
        for text in entry.changes:
            yield Change(text.split(" ", 1)[0], 1, entry.name, text)


def _printable(text: str) -> str:
    """``text`` with marks in place of bytes of file names that are not UTF-8."""
    return os.fsencode(text).decode(errors="replace")


def _flat(facts: SampleFacts | None) -> list[int]:
    return [*facts.original_size, *facts.crop, *facts.size] if facts else []


def _damaged(path: Path, why: str) -> str:
    return f"the index file {path} is damaged: {why}; remove it, and the next run makes it anew"
