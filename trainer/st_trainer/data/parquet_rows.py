"""Rows of parquet files, read a group at a time."""

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from st_trainer.data.files import Files
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.table_source import row_name, row_number
from st_trainer.errors import BadDataError

SUFFIX = ".parquet"
KEPT_BYTES = 256 << 20
"""Of the groups of rows that stay in memory, the last ones that were asked for."""
_LEAST_KEPT = 2
"""Groups that stay however large they are."""
_KNOWN_FILES = 256
_UNREADABLE = (pa.ArrowInvalid, pa.ArrowIOError, OSError, UnicodeDecodeError)


class ParquetRows:
    """The rows of the parquet files in ``files``, or of ``chosen`` alone.

    Any row is found by reading its group, so groups of a hundred rows are quicker than of many
    thousands. A damaged file is one row, which cannot be read.
    """

    def __init__(self, files: Files, chosen: str | None = None) -> None:
        self._files = files
        self._chosen = chosen
        self._metadata = lru_cache(_KNOWN_FILES)(self._read_metadata)
        self._groups: dict[tuple[str, ...], _Groups] = {}
        self._lock = Lock()

    @property
    def identity(self) -> str:
        """The place of the files."""
        return repr(("parquet", self._files.identity, self._chosen))

    @cached_property
    def columns(self) -> Mapping[str, bool]:
        """Those of the first file that can be read."""
        for file in self._listed():
            try:
                schema = self._metadata(file).schema.to_arrow_schema()
            except _UNREADABLE:
                continue
            return {field.name: _is_text(field.type) for field in schema}
        raise BadDataError(
            f"training.datasets: no parquet file that can be read below {self._files.identity}"
        )

    def names(self) -> Iterator[str]:
        """File by file."""
        for file in self._listed():
            try:
                count = self._metadata(file).num_rows
            except _UNREADABLE:
                count = 1
            for number in range(count):
                yield row_name(file, number)

    def stamp(self, name: str) -> bytes:
        """The mark of its file."""
        file, number = row_number(name)
        return hashlib.blake2b(self._files.mark(file) + number.to_bytes(8, "little")).digest()

    def row(self, name: str, columns: Sequence[str]) -> Mapping[str, Any]:
        """Out of the group that holds it."""
        file, number = row_number(name)
        try:
            with self._lock:  # one group is read at a time, by whoever needs it first
                starts = self._starts(file)
                group = bisect_right(starts, number) - 1
                table = self._group(file, group, tuple(columns))
            place = number - starts[group]
            return {column: table.column(column)[place].as_py() for column in columns}
        except (*_UNREADABLE, KeyError, IndexError) as error:
            raise UnreadableSampleError(f"damaged parquet file {file}: {_first(error)}") from None

    def _listed(self) -> Iterator[str]:
        files = self._files.names(lambda name: name.lower().endswith(SUFFIX))
        for file in sorted(files, key=lambda name: f"{name}/"):
            if self._chosen in {None, file}:
                yield file

    def _read_metadata(self, file: str) -> Any:
        with self._files.open(file) as raw:
            return pq.read_metadata(raw)

    def _starts(self, file: str) -> list[int]:
        metadata = self._metadata(file)
        sizes = (metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        return [0, *accumulate(sizes)]

    def _group(self, file: str, group: int, columns: tuple[str, ...]) -> pa.Table:
        groups = self._groups.setdefault(columns, _Groups())
        table = groups.get((file, group))
        if table is None:
            with self._files.open(file) as raw:
                opened = pq.ParquetFile(raw, metadata=self._metadata(file))
                table = opened.read_row_group(group, list(columns))
            groups.add((file, group), table)
        return table


class _Groups:
    """Groups of the same columns, so that those of pictures do not push out those of captions."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[str, int]) -> pa.Table | None:
        if key in self._tables:
            self._tables.move_to_end(key)
        return self._tables.get(key)

    def add(self, key: tuple[str, int], table: pa.Table) -> None:
        self._tables[key] = table
        self._bytes += table.nbytes
        while self._bytes > KEPT_BYTES and len(self._tables) > _LEAST_KEPT:
            _, oldest = self._tables.popitem(last=False)
            self._bytes -= oldest.nbytes


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
