"""Rows in a file that is mapped into memory: columns of numbers and bytes, one a row."""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

_BATCH_ROWS = 4_096


class MappedTable:
    """A table that takes no memory but for the pages that are looked at."""

    def __init__(self, path: Path) -> None:
        with pa.memory_map(os.fspath(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            self._batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
            self.columns: list[str] = reader.schema.names
            metadata = reader.schema.metadata or {}
        self.note: str = metadata.get(b"note", b"").decode()
        self._count: int = sum(batch.num_rows for batch in self._batches)

    def __len__(self) -> int:
        """Rows."""
        return self._count

    def value(self, row: int, column: str) -> Any:
        """What stands in ``column`` of ``row``."""
        batch = self._batches[row // _BATCH_ROWS]
        return batch.column(column)[row % _BATCH_ROWS].as_py()

    def values(self, column: str) -> Iterator[Any]:
        """A whole column."""
        for batch in self._batches:
            yield from (each.as_py() for each in batch.column(column))

    def find(self, column: str, value: Any) -> int | None:
        """The row of ``value`` in a column that is sorted; None: it is not there."""
        place: int = bisect_left(range(self._count), value, key=lambda row: self.value(row, column))
        is_there = place < self._count and self.value(place, column) == value
        return place if is_there else None


def kept_table(path: Path, make: Callable[[], None]) -> MappedTable:
    """The table at ``path``, which ``make`` puts there where there is none, or a torn one."""
    try:
        return MappedTable(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        make()
        return MappedTable(path)


def write_table(
    path: Path, schema: pa.Schema, rows: Iterable[Sequence[Any]], note: str = ""
) -> None:
    """Put ``rows`` of ``schema`` at ``path``, whole or not at all; others may write the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    schema = schema.with_metadata({"note": note})
    with aside.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
        batch: list[Sequence[Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH_ROWS:
                writer.write_batch(_batch_of(batch, schema))
                batch = []
        if batch:
            writer.write_batch(_batch_of(batch, schema))
    aside.replace(path)


def _batch_of(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, each.type) for column, each in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema)
