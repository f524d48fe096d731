"""A folder as deterministic tar archives: the same files always give the same bytes.

Archives are made twice and never stored: once to learn size and digest, once to be sent.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from st_client.errors import BadInputError, ConflictError
from st_shared.media import SUFFIXES
from st_shared.protocol.content import ContentFile, content_digest

MAX_ARCHIVE_BYTES = 256 << 20
"""Most bytes of an archive; a larger file gets one of its own."""

SAMPLE_SUFFIXES = frozenset().union(*SUFFIXES.values())
MANY_SUFFIXES = frozenset({".arrow", ".csv", ".parquet", ".tar"})
"""Ends of the names of files that hold many samples each."""
"""What the trainer reads."""

_PIECE_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_END = b"\0" * (2 * _BLOCK)


@dataclass(frozen=True)
class Folder:
    """The files of a dataset."""

    root: Path
    files: list[ContentFile]

    @property
    def digest(self) -> str:
        """Names the content."""
        return content_digest(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def samples(self) -> int:
        """Images, videos and sounds that have a caption, a file of the same stem, beside them.

        Without such, the archives and tables; how many samples these hold, the trainer finds out.
        """
        paths = [Path(file.path) for file in self.files]
        media = {path for path in paths if path.suffix.lower() in SAMPLE_SUFFIXES}
        captioned = {path.with_suffix("") for path in paths if path not in media}
        found = sum(path.with_suffix("") in captioned for path in media)
        return found or sum(path.suffix.lower() in MANY_SUFFIXES for path in paths)


def read_folder(root: Path) -> Folder:
    """Every file below ``root``, digested, in order; names that begin with a dot are left out.

    Raises:
        BadInputError: no folder, a link that leads nowhere, or no sample beside a caption, archive
            or table.
    """
    if not root.is_dir():
        raise BadInputError(f"{root} is not a folder", hint="give the folder of the dataset")
    folder = Folder(root, [_digested(root, path) for path in sorted(_paths(root))])
    if folder.samples == 0:
        raise BadInputError(
            f"{root} holds no image, video or sound with a caption, and no archive or table",
            hint="put a text file of the same stem beside each: 0001.png and 0001.txt",
        )
    return folder


def _paths(root: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield (Path(parent) / name).relative_to(root).as_posix()


def _digested(root: Path, path: str) -> ContentFile:
    try:
        path.encode()
        with (root / path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return ContentFile(path, file.tell(), sha256)
    except UnicodeEncodeError:
        raise BadInputError(f"the name of {path!r} is not UTF-8", hint="rename the file") from None
    except OSError as error:
        raise BadInputError(
            f"cannot read {root / path}", detail=str(error.strerror), hint="mend or remove it"
        ) from None


@dataclass(frozen=True)
class Archive:
    """One tar archive, known by its bytes."""

    root: Path
    files: list[ContentFile]
    size: int
    sha256: str

    def pieces(self) -> Iterator[bytes]:
        """The archive; ``ConflictError`` when a file has changed since it was digested."""
        return _archive_pieces(self.root, self.files)


def pack(folder: Folder, limit: int = MAX_ARCHIVE_BYTES) -> list[Archive]:
    """The archives that together hold ``folder``, each at most ``limit`` bytes where possible."""
    return [_digest_archive(folder.root, files) for files in _groups(folder.files, limit)]


def _groups(files: Iterable[ContentFile], limit: int) -> Iterator[list[ContentFile]]:
    group: list[ContentFile] = []
    size = len(_END)
    for file in files:
        room = len(_header(file)) + file.size + _padding(file.size)
        if group and size + room > limit:
            yield group
            group, size = [], len(_END)
        group.append(file)
        size += room
    if group:
        yield group


def _digest_archive(root: Path, files: list[ContentFile]) -> Archive:
    digest, size = hashlib.sha256(), 0
    for piece in _archive_pieces(root, files):
        digest.update(piece)
        size += len(piece)
    return Archive(root, files, size, digest.hexdigest())


def _archive_pieces(root: Path, files: list[ContentFile]) -> Iterator[bytes]:
    for file in files:
        yield _header(file)
        yield from _content(root / file.path, file)
        yield b"\0" * _padding(file.size)
    yield _END


def _header(file: ContentFile) -> bytes:
    """The entry of a file without what differs between machines: owner, time, mode."""
    entry = tarfile.TarInfo(file.path)
    entry.size, entry.mode, entry.mtime = file.size, 0o644, 0
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> int:
    return -size % _BLOCK


def _content(path: Path, file: ContentFile) -> Iterator[bytes]:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        left = file.size
        while piece := source.read(min(left, _PIECE_BYTES)):
            digest.update(piece)
            left -= len(piece)
            yield piece
        if left or source.read(1) or digest.hexdigest() != file.sha256:
            raise ConflictError(
                f"{path} changed while it was being sent",
                hint="let nothing write to the folder, then push again",
                code="file_changed",
            )
