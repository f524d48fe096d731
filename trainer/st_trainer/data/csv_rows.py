"""Rows of CSV files, brought once into a form in which each is found at once."""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from st_trainer.data.files import Files
from st_trainer.data.mapped_table import MappedTable, kept_table, write_table
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.table_source import row_name, row_number
from st_trainer.errors import BadDataError

SUFFIX = ".csv"
_VERSION = 1
_OPEN_TABLES = 64
_REASON = ""
"""The column that says what is wrong with a row; a CSV file's own columns have names."""


class CsvRows:
    """The rows of the CSV files in ``files``, or of ``chosen`` alone; the first line names columns.

    What they are brought into lies below ``notes``.
    """

    def __init__(self, files: Files, notes: Path, chosen: str | None = None) -> None:
        self._files = files
        self._notes = notes
        self._chosen = chosen
        self._table = lru_cache(_OPEN_TABLES)(self._read_table)

    @property
    def identity(self) -> str:
        """The place of the files."""
        return repr(("csv", self._files.identity, self._chosen))

    @cached_property
    def columns(self) -> Mapping[str, bool]:
        """Those of the first file that has any; all hold texts."""
        for file in self._listed():
            names = [name for name in self._of(file).columns if name != _REASON]
            if names:
                return dict.fromkeys(names, True)
        raise BadDataError(f"training.datasets: no CSV file below {self._files.identity}")

    def names(self) -> Iterator[str]:
        """File by file."""
        for file in self._listed():
            for number in range(len(self._of(file))):
                yield row_name(file, number)

    def stamp(self, name: str) -> bytes:
        """The mark of its file."""
        file, number = row_number(name)
        return hashlib.blake2b(self._files.mark(file) + number.to_bytes(8, "little")).digest()

    def row(self, name: str, columns: Sequence[str]) -> Mapping[str, Any]:
        """As texts."""
        file, number = row_number(name)
        table = self._of(file)
        if reason := table.value(number, _REASON):
            raise UnreadableSampleError(reason)
        if missing := [column for column in columns if column not in table.columns]:
            raise UnreadableSampleError(f"{file} has no column {missing[0]}")
        return {column: table.value(number, column) for column in columns}

    def _listed(self) -> Iterator[str]:
        files = self._files.names(lambda name: name.lower().endswith(SUFFIX))
        for file in sorted(files, key=lambda name: f"{name}/"):
            if self._chosen in {None, file}:
                yield file

    def _of(self, file: str) -> MappedTable:
        return self._table(file, self._files.mark(file))

    def _read_table(self, file: str, mark: bytes) -> MappedTable:
        key = repr((_VERSION, self._files.identity, file, mark)).encode()
        path = self._notes / f"{hashlib.sha256(key).hexdigest()[:32]}.rows"

        def make() -> None:
            with (
                self._files.open(file) as raw,
                io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as text,
            ):
                reader = csv.reader(text)
                header = _header(reader, file)
                schema = pa.schema([(name, pa.string()) for name in (*header, _REASON)])
                write_table(path, schema, _rows(reader, len(header)))

        return kept_table(path, make)


def _header(reader: Any, file: str) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise BadDataError(f"training.datasets: {file} is no CSV: {error}") from None
    if not all(header) or not "".join(header).isprintable() or len(set(header)) < len(header):
        raise BadDataError(
            f"training.datasets: the first line of {file} must name each column, each once"
        )
    return header


def _rows(reader: Any, width: int) -> Iterator[list[str]]:
    """The rows, each with what is wrong with it."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield [*[""] * width, f"line {reader.line_num}: {error}"]
            continue
        if not row:
            continue
        reason = ""
        if len(row) != width:
            reason = f"line {reader.line_num} has {len(row)} fields, not {width}"
        elif any("\udc80" <= character <= "\udcff" for character in "".join(row)):
            reason = f"line {reader.line_num} is not UTF-8 text"
        yield [*([""] * width if reason else row), reason]
