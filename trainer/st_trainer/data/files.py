"""Files by name, wherever they lie; a name is a path with forward slashes."""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from st_trainer.data.ranged_file import Remote
from st_trainer.errors import BadDataError


class Files(Protocol):
    """Where the files of a dataset are; called from several threads."""

    @property
    def identity(self) -> str:
        """The place: another one is another index."""

    def names(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Names whose last part is ``wanted``, in order of code points, each once.

        Hidden files and folders are left out.

        Raises:
            BadDataError: they cannot be listed.
        """

    def mark(self, name: str) -> bytes:
        """What changes with the content of a file; empty where there is no such file. Cheap."""

    def open(self, name: str) -> BinaryIO:
        """The file, open for reading, at its beginning; it can seek.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """

    def remote(self, name: str) -> Remote | None:
        """The file, if it is one that an index should not fetch as a whole."""

    def delete(self, name: str) -> None:
        """Remove the file; nothing happens where there is none.

        Raises:
            OSError: it may not be removed, or is known to have changed.
        """


class LocalFiles:
    """Files below ``folder``, without those in the folder ``apart``."""

    def __init__(self, folder: Path, apart: Path | None = None) -> None:
        self.folder = folder
        self._apart = apart

    @property
    def identity(self) -> str:
        """The folder."""
        return str(self.folder.resolve())

    def names(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Found by listing folder by folder; links to folders are not followed."""
        return self._below(self.folder, "", wanted)

    def mark(self, name: str) -> bytes:
        """Size and time."""
        try:
            found = (self.folder / name).stat()
        except (OSError, ValueError):  # told with its reason when the file is read
            return b""
        return struct.pack("<2q", found.st_size, found.st_mtime_ns)

    def open(self, name: str) -> BinaryIO:
        """The file itself."""
        return (self.folder / name).open("rb")

    def remote(self, name: str) -> None:
        """It is here."""
        del name

    def delete(self, name: str) -> None:
        """The file itself."""
        (self.folder / name).unlink(missing_ok=True)

    def _below(self, folder: Path, prefix: str, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Names below ``folder``; a folder sorts with its slash, so that all names are in order."""
        try:
            with os.scandir(folder) as entries:
                found = [name for entry in entries if (name := self._listed(entry, wanted))]
        except OSError as error:
            raise BadDataError(
                f"training.datasets: the folder {folder} cannot be listed: {error.strerror}; "
                "let this user read it, or move it out of the dataset"
            ) from error
        for name in sorted(found):
            if name.endswith("/"):
                yield from self._below(folder / name, prefix + name, wanted)
            else:
                yield prefix + name

    def _listed(self, entry: os.DirEntry[str], wanted: Callable[[str], bool]) -> str | None:
        """The name if it is wanted; with a slash behind it if it is a folder to look into."""
        if entry.name.startswith("."):
            return None
        if entry.is_dir():
            is_left_out = entry.is_symlink() or Path(entry.path) == self._apart
            return None if is_left_out else f"{entry.name}/"
        return entry.name if wanted(entry.name) else None
