"""A folder of samples, each with its caption, and perhaps mask and conditioning picture, beside."""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.conditioning import find_conditioning
from st_trainer.data.lyrics import LYRICS_SUFFIX, with_lyrics
from st_trainer.data.masks import find_mask
from st_trainer.data.medium import Medium, UnreadableSampleError
from st_trainer.data.source import STAMP_BYTES, Entry
from st_trainer.errors import BadDataError

MAX_CAPTION_BYTES = 16_384
_ABSENT = (-1, -1)


class FolderSource:
    """Files of ``medium`` below ``folder``, as ``dataset`` describes them."""

    def __init__(self, folder: Path, dataset: DatasetSpec, medium: Medium) -> None:
        self.folder = folder
        self.conditions = folder / dataset.conditioning if dataset.conditioning else None
        """Folder of the conditioning pictures."""
        self._dataset = dataset
        self._medium = medium

    @property
    def identity(self) -> str:
        """Folder, kind and size of the samples, and what lies beside them."""
        dataset = self._dataset
        beside = (dataset.caption_suffix, dataset.mask_suffix, str(self.conditions))
        return repr((str(self.folder.resolve()), self._medium, beside))

    def names(self) -> Iterator[str]:
        """Files with the suffixes of the medium, without hidden ones, masks and conditions.

        Raises:
            BadDataError: a folder cannot be listed.
        """
        return self._below(self.folder, "")

    def stamp(self, name: str) -> bytes:
        """Size and time of the file, of its caption, mask, conditioning picture and lyrics."""
        found = [number for path in self._files(name) for number in _size_and_time(path)]
        packed = struct.pack(f"<{len(found)}q", *found)
        return hashlib.blake2b(packed, digest_size=STAMP_BYTES).digest()

    def read(self, name: str, stamp: bytes) -> Entry:
        """The sample, decoded once; its values are not kept."""
        try:
            return self._read(name, stamp)
        except UnreadableSampleError as error:
            return Entry(name, stamp, reason=str(error))
        except OSError as error:
            return Entry(name, stamp, reason=f"it cannot be read: {error.strerror or error}")

    def mask(self, name: str) -> Path | None:
        """Where the mask of a sample lies; None where the dataset has none."""
        suffix = self._dataset.mask_suffix
        path = self.folder / name
        return path.with_name(path.stem + suffix) if suffix else None

    def conditioning(self, name: str) -> Path | None:
        """Where the conditioning picture of a sample lies; None where the dataset has none."""
        return self.conditions / name if self.conditions else None

    def _read(self, name: str, stamp: bytes) -> Entry:
        path, dataset = self.folder / name, self._dataset
        caption = read_caption(path.with_suffix(dataset.caption_suffix))
        if self._medium.kind == "audio":
            caption = with_lyrics(caption, path)
        read = self._medium.read(path)
        shape = read.values.shape
        mask = find_mask(path, dataset.mask_suffix, self._medium, shape)
        conditioning = find_conditioning(name, self.conditions, self._medium, shape)
        parts = [os.fsencode(name), caption.encode(), str(shape).encode(), read.identity]
        parts += [beside.read_bytes() for beside in (mask, conditioning) if beside]
        return Entry(
            name,
            stamp,
            caption=caption,
            shape=shape,
            value_bytes=read.values.nbytes,
            facts=read.facts,
            digest=_digest(parts),
            changes=read.changes,
        )

    def _files(self, name: str) -> Iterator[Path]:
        """The files on which a sample depends, there or not."""
        path = self.folder / name
        yield path
        yield path.with_suffix(self._dataset.caption_suffix)
        if self._medium.kind == "audio":
            yield path.with_suffix(LYRICS_SUFFIX)
        yield from filter(None, (self.mask(name), self.conditioning(name)))

    def _below(self, folder: Path, prefix: str) -> Iterator[str]:
        """Names below ``folder``; a folder sorts with its slash, so that all names are in order."""
        try:
            with os.scandir(folder) as entries:
                found = [name for entry in entries if (name := self._wanted(entry))]
        except OSError as error:
            raise BadDataError(
                f"training.datasets: the folder {folder} cannot be listed: {error.strerror}; "
                "let this user read it, or move it out of the dataset"
            ) from error
        for name in sorted(found):
            if name.endswith("/"):
                yield from self._below(folder / name, prefix + name)
            else:
                yield prefix + name

    def _wanted(self, entry: os.DirEntry[str]) -> str | None:
        """The name if it may be a sample; with a slash behind it if it is a folder to look into."""
        name = entry.name
        if name.startswith("."):
            return None
        if entry.is_dir():
            excluded = entry.is_symlink() or Path(entry.path) == self.conditions
            return None if excluded else f"{name}/"
        if Path(name).suffix.lower() not in self._medium.suffixes:
            return None
        mask = self._dataset.mask_suffix
        return None if mask and name.endswith(mask) else name


def read_caption(path: Path) -> str:
    """The caption in the text file ``path``, on one line.

    Raises:
        UnreadableSampleError: the file is missing, empty, too long or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CAPTION_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableSampleError(f"no caption: {path.name} is missing") from None
    except OSError as error:
        raise UnreadableSampleError(f"caption cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CAPTION_BYTES:
        raise UnreadableSampleError(f"{path.name} is longer than {MAX_CAPTION_BYTES} bytes")
    try:
        caption = " ".join(raw.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        raise UnreadableSampleError(f"{path.name} is not UTF-8 text") from None
    if not caption:
        raise UnreadableSampleError(f"{path.name} is empty")
    return caption


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # told with its reason when the sample is read
        return _ABSENT
    return found.st_size, found.st_mtime_ns


def _digest(parts: list[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
