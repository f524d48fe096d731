"""Rows of a table as samples: each cell holds a file itself, or says where it lies."""

import errno
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data import caption_text
from st_trainer.data.boxes import Box, box_in
from st_trainer.data.content import Content
from st_trainer.data.entry import STAMP_BYTES
from st_trainer.data.file_marks import picture_suffix
from st_trainer.data.files import Files
from st_trainer.data.medium import Medium, UnreadableSampleError
from st_trainer.errors import BadDataError

_USUAL_CAPTIONS = ("caption", "text")
_USUAL_JSON = "json"


class Rows(Protocol):
    """The rows of a table; called from several threads."""

    @property
    def identity(self) -> str:
        """The place."""

    @property
    def columns(self) -> Mapping[str, bool]:
        """The names of the columns, and whether each holds texts.

        Raises:
            BadDataError: the table cannot be read at all.
        """

    def names(self) -> Iterator[str]:
        """A name for each row, in their order."""

    def stamp(self, name: str) -> bytes:
        """What changes with the row; cheap."""

    def row(self, name: str, columns: Sequence[str]) -> Mapping[str, Any]:
        """The cells of ``columns`` in a row.

        Raises:
            UnreadableSampleError: the row, or the file that holds it, is damaged.
        """


class TableSource:
    """``rows`` as samples of ``medium``; ``files`` has what cells name."""

    def __init__(
        self, rows: Rows, files: Files | None, dataset: DatasetSpec, medium: Medium
    ) -> None:
        self._rows = rows
        self._files = files
        self._spec = dataset.captions
        self._place = dataset.path or dataset.name
        columns = dataset.columns
        self._sample = columns.sample or medium.kind
        self._mask, self._conditioning = columns.mask, columns.conditioning
        self._lyrics = columns.lyrics if medium.kind == "audio" else None
        self._box = columns.box
        self._suffixes = medium.suffixes
        self._caption = self._caption_column()
        wanted = (
            self._sample, self._mask, self._conditioning, self._lyrics, self._caption, self._box,
        )  # fmt: skip
        self._wanted = [name for name in dict.fromkeys(wanted) if name]
        self._check()
        self._linked = [
            name
            for name in (self._sample, self._mask, self._conditioning)
            if name and rows.columns[name]
        ]

    @property
    def identity(self) -> str:
        """The table and its columns."""
        return repr((self._rows.identity, self._wanted))

    def names(self) -> Iterator[str]:
        """Those of the rows."""
        return self._rows.names()

    def stamp(self, name: str) -> bytes:
        """Over the row, and the files that it names."""
        digest = hashlib.blake2b(self._rows.stamp(name), digest_size=STAMP_BYTES)
        if self._linked and self._files:
            try:
                row = self._rows.row(name, self._linked)
            except UnreadableSampleError:  # told when it is read
                return digest.digest()
            for column in self._linked:
                mark = self._files.mark(str(row[column]))
                digest.update(len(mark).to_bytes(4, "little") + mark)
        return digest.digest()

    def sample(self, name: str) -> Content:
        """The file in the row, or that it names."""
        found = self._content(name, self._sample)
        return replace(found, box=partial(self._box_of, name, self._box)) if self._box else found

    def delete(self, name: str) -> None:
        """Rows stay."""
        raise OSError(errno.EROFS, "rows of tables stay", name)

    def captions(self, name: str) -> list[str]:
        """What the row says."""
        spec = self._spec
        if spec.source == "instance":
            return [str(spec.instance_prompt)]
        if spec.source == "name":
            return caption_text.from_name(self._content(name, self._sample).name)
        column = str(self._caption)
        value = self._cell(name, column)
        if spec.source == "json":
            if isinstance(value, str):
                return caption_text.from_json(Content.of_bytes(column, value.encode()), spec)
            return caption_text.from_value(caption_text.at_key(value, spec.key), spec, spec.key)
        if spec.column and spec.column != column:
            _, _, rest = spec.column.partition(".")
            value = caption_text.at_key(value, rest)
        return caption_text.from_value(value, spec, spec.column or column)

    def mask(self, name: str) -> Content | None:
        """The picture in the row, or that it names."""
        return self._content(name, self._mask) if self._mask else None

    def conditioning(self, name: str) -> Content | None:
        """The picture in the row, or that it names."""
        return self._content(name, self._conditioning) if self._conditioning else None

    def lyrics(self, name: str) -> Content | None:
        """The text in the row."""
        if self._lyrics is None:
            return None
        text = self._cell(name, self._lyrics)
        return Content.of_bytes(self._lyrics, text.encode()) if isinstance(text, str) else None

    def _box_of(self, name: str, column: str) -> Box | None:
        return box_in(self._cell(name, column), f"column {column}")

    def _cell(self, name: str, column: str) -> Any:
        return self._rows.row(name, [column])[column]

    def _content(self, name: str, column: str) -> Content:
        """What is in a cell: bytes, a pair of bytes and path as Hugging Face has it, or a path.

        Raises:
            UnreadableSampleError: it is none of these, or leads out of the table's folder.
        """
        value = self._cell(name, column)
        path = None
        if isinstance(value, Mapping):
            pair: Mapping[str, Any] = value
            value, path = pair.get("bytes"), pair.get("path")
            if value is None and path and self._files is None:  # the library has found it
                return Content.of_file(Path(path))
            value = path if value is None else value
        if isinstance(value, bytes):
            called = PurePosixPath(str(path or f"{name}{picture_suffix(value)}")).name
            return Content.of_bytes(called, value)
        if not isinstance(value, str) or not value:
            raise UnreadableSampleError(f"column {column} holds neither a file nor its path")
        if self._files is None or _leads_out(value):
            raise UnreadableSampleError(
                f"column {column} names {_shown(value)}, which is not below the folder of the table"
            )
        if PurePosixPath(value).suffix.lower() not in self._suffixes and column == self._sample:
            raise UnreadableSampleError(f"column {column} names {value}, which is of another kind")
        files = self._files
        called = PurePosixPath(value).name
        return Content(called, partial(files.open, value), partial(files.remote, value))

    def _caption_column(self) -> str | None:
        """The column that captions come from; None: they are in none."""
        spec, known = self._spec, self._rows.columns
        if spec.source in {"name", "instance"}:
            return None
        if spec.column:
            return spec.column if spec.column in known else spec.column.partition(".")[0]
        if spec.source == "json":
            return _USUAL_JSON
        return next((name for name in _USUAL_CAPTIONS if name in known), _USUAL_CAPTIONS[0])

    def _check(self) -> None:
        known = self._rows.columns
        for name in self._wanted:
            if name not in known:
                key = "captions.column" if name == self._caption else "columns"
                raise BadDataError(
                    f"training.datasets: {self._place} has no column {name!r}; it has "
                    f"{', '.join(known)}: name the right one in {key}"
                )


def _leads_out(path: str) -> bool:
    """Whether ``path`` is none below the folder of the table; no path holds a NUL."""
    return PurePosixPath(path).is_absolute() or ".." in path.split("/") or "\0" in path


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)


def row_name(file: str, number: int) -> str:
    """The name of a row: names of one file are in the order of its rows."""
    return f"{file}/{number:010d}"


def row_number(name: str) -> tuple[str, int]:
    """The file and the number that are in the name of a row."""
    file, _, number = name.rpartition("/")
    return file, int(number)
