"""Files in tar archives, as WebDataset has them: ``shard-0001.tar/a.png`` beside ``….tar/a.txt``.

Archives are read at the places of their members; what these are is noted once for each archive.
"""

import errno
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from st_trainer.data.files import Files
from st_trainer.data.mapped_table import MappedTable, kept_table, write_table

SUFFIX = ".tar"
_VERSION = 1
_SCHEMA = pa.schema([("name", pa.binary()), ("offset", pa.int64()), ("size", pa.int64())])
_OPEN_TABLES = 512
"""Archives whose notes stay mapped."""


class TarFiles:
    """The members of the archives in ``archives``, or of ``chosen`` alone.

    An archive that is damaged is a name of its own, which cannot be opened; members before the
    damage are there. Notes lie below ``notes``.
    """

    def __init__(self, archives: Files, notes: Path, chosen: str | None = None) -> None:
        self._archives = archives
        self._notes = notes
        self._chosen = chosen
        self._table = lru_cache(_OPEN_TABLES)(self._read_table)

    @property
    def identity(self) -> str:
        """The place of the archives."""
        return repr(("tar", self._archives.identity, self._chosen))

    def names(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Archive by archive; in each its members in order."""
        archives = self._archives.names(lambda name: name.lower().endswith(SUFFIX))
        for archive in sorted(archives, key=lambda name: f"{name}/"):
            if self._chosen and archive != self._chosen:
                continue
            table = self._table(archive, self._archives.mark(archive))
            if table.note:
                yield archive
            for raw in table.values("name"):
                name = os.fsdecode(raw)
                parts = name.split("/")
                if wanted(parts[-1]) and not any(part.startswith(".") for part in parts):
                    yield f"{archive}/{name}"

    def mark(self, name: str) -> bytes:
        """That of the archive, with the place of the member."""
        archive, member = _split(name)
        mark = self._archives.mark(archive)
        if not mark or not member:
            return mark
        place = self._place(archive, mark, member)
        return mark + repr(place).encode() if place else b""

    def open(self, name: str) -> BinaryIO:
        """The member, in memory."""
        archive, member = _split(name)
        mark = self._archives.mark(archive)
        if not mark:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if not member:
            raise OSError(errno.EIO, self._table(archive, mark).note or "an archive, no sample")
        place = self._place(archive, mark, member)
        if place is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        offset, size = place
        with self._archives.open(archive) as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))

    def remote(self, name: str) -> None:
        """Archives are here, once they were listed."""
        del name

    def delete(self, name: str) -> None:
        """Members stay."""
        raise OSError(errno.EROFS, "members of archives stay", name)

    def _place(self, archive: str, mark: bytes, member: str) -> tuple[int, int] | None:
        table = self._table(archive, mark)
        row = table.find("name", os.fsencode(member))
        return None if row is None else (table.value(row, "offset"), table.value(row, "size"))

    def _read_table(self, archive: str, mark: bytes) -> MappedTable:
        """Where the members of ``archive`` lie; its note says what is wrong with it."""
        key = repr((_VERSION, self._archives.identity, archive, mark)).encode()
        path = self._notes / f"{hashlib.sha256(key).hexdigest()[:32]}.members"

        def make() -> None:
            with self._archives.open(archive) as file:
                members, note = _members(file)
            write_table(path, _SCHEMA, members, note)

        return kept_table(path, make)


def _members(file: BinaryIO) -> tuple[list[tuple[bytes, int, int]], str]:
    """Name, offset and size of each file in an archive, by name; and what is wrong with it."""
    found: dict[bytes, tuple[int, int]] = {}
    note = ""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.size < 0:  # the next would be this one again, without end
                    note = "damaged archive: a member has a negative size"
                    break
                if not member.isreg():
                    continue
                if member.offset_data + member.size > size:
                    note = "damaged archive: it ends early"
                    break
                name = member.name.removeprefix("./")
                found[os.fsencode(name)] = (member.offset_data, member.size)
            if not note:
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    note = "damaged archive: it ends early"  # tarfile takes half a header for it
    except (tarfile.TarError, ValueError, OverflowError) as error:
        note = f"damaged archive: {error}"
    return [(name, *found[name]) for name in sorted(found)], note


def _split(name: str) -> tuple[str, str]:
    """The archive, and the member in it; empty where ``name`` is the archive itself."""
    lower, mark = name.lower(), f"{SUFFIX}/"
    place = lower.find(mark)
    if place < 0:
        stem = name.rpartition(".")[0] if not lower.endswith(SUFFIX) else ""
        return (f"{stem}{SUFFIX}" if stem else name), ""
    return name[: place + len(SUFFIX)], name[place + len(mark) :]
