"""Files as samples, each with its caption, and perhaps mask and conditioning picture, beside."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath

from st_shared.media import SUFFIXES
from st_shared.spec.dataset import DatasetSpec
from st_trainer.data import caption_text
from st_trainer.data.boxes import box_beside
from st_trainer.data.content import Content
from st_trainer.data.entry import STAMP_BYTES
from st_trainer.data.files import Files
from st_trainer.data.lyrics import LYRICS_SUFFIX
from st_trainer.data.medium import Medium


class FileSource:
    """``files`` of ``medium``, as ``dataset`` describes them.

    ``conditions`` has the conditioning pictures, each by the name of its sample; those of videos
    are PNG files.
    """

    def __init__(
        self, files: Files, dataset: DatasetSpec, medium: Medium, conditions: Files | None = None
    ) -> None:
        self._files = files
        self._conditions = conditions
        self._mask_suffix = dataset.mask_suffix
        self._condition_suffix = dataset.conditioning_suffix
        self._box_suffix = dataset.box_suffix
        self._captions = dataset.captions
        self._suffixes = medium.suffixes
        self._lyrics_suffix = LYRICS_SUFFIX if medium.kind == "audio" else None

    @property
    def identity(self) -> str:
        """Where the files are, and what belongs to a sample."""
        conditions = self._conditions and self._conditions.identity
        beside = (
            self._mask_suffix, self._condition_suffix, self._caption_suffix, self._box_suffix,
        )  # fmt: skip
        return repr((self._files.identity, conditions, beside))

    def names(self) -> Iterator[str]:
        """Files with the suffixes of the medium, without masks."""
        return self._files.names(self._wanted)

    def stamp(self, name: str) -> bytes:
        """Over the marks of everything that belongs to the sample."""
        marks = [self._files.mark(each) for each in self._belonging(name)]
        if self._conditions:
            marks.append(self._conditions.mark(_picture_of(name)))
        digest = hashlib.blake2b(digest_size=STAMP_BYTES)
        for mark in marks:
            digest.update(len(mark).to_bytes(4, "little") + mark)
        return digest.digest()

    def sample(self, name: str) -> Content:
        """The file itself."""
        found = self._content(name)
        if self._box_suffix is None:
            return found
        return replace(
            found, box=partial(box_beside, self._content(_beside(name, self._box_suffix)))
        )

    def delete(self, name: str) -> None:
        """The file alone."""
        self._files.delete(name)

    def captions(self, name: str) -> list[str]:
        """In a file beside it, or in its name."""
        match self._captions.source:
            case "instance":
                return [str(self._captions.instance_prompt)]
            case "name":
                return caption_text.from_name(name)
            case "json":
                return caption_text.from_json(self._caption_file(name), self._captions)
            case _:
                return caption_text.from_file(self._caption_file(name), self._captions)

    def mask(self, name: str) -> Content | None:
        """Beside it."""
        return self._content(_beside(name, self._mask_suffix)) if self._mask_suffix else None

    def conditioning(self, name: str) -> Content | None:
        """Beside it, or by the same name among the pictures for ControlNets."""
        if self._condition_suffix:
            return self._content(_beside(name, self._condition_suffix))
        if self._conditions is None:
            return None
        return _content_of(self._conditions, _picture_of(name))

    def lyrics(self, name: str) -> Content | None:
        """Beside it."""
        return self._content(_beside(name, self._lyrics_suffix)) if self._lyrics_suffix else None

    @property
    def _caption_suffix(self) -> str | None:
        """None where captions need no file."""
        usual = {None: ".txt", "file": ".txt", "json": ".json"}
        return self._captions.suffix or usual.get(self._captions.source)

    def _caption_file(self, name: str) -> Content:
        return self._content(_beside(name, str(self._caption_suffix)))

    def _content(self, name: str) -> Content:
        return _content_of(self._files, name)

    def _belonging(self, name: str) -> Iterator[str]:
        """The files on which a sample depends, there or not."""
        yield name
        suffixes = (
            self._caption_suffix, self._lyrics_suffix, self._mask_suffix, self._condition_suffix,
            self._box_suffix,
        )  # fmt: skip
        for suffix in filter(None, suffixes):
            yield _beside(name, suffix)

    def _wanted(self, name: str) -> bool:
        if any(end and name.endswith(end) for end in (self._mask_suffix, self._condition_suffix)):
            return False
        return PurePosixPath(name).suffix.lower() in self._suffixes


def _picture_of(name: str) -> str:
    """The name of the conditioning picture of a sample: its own, where it is a picture itself."""
    is_picture = PurePosixPath(name).suffix.lower() in SUFFIXES["image"]
    return name if is_picture else _beside(name, ".png")


def _beside(name: str, suffix: str) -> str:
    """The file of the same stem that ends with ``suffix``."""
    return name[: len(name) - len(PurePosixPath(name).suffix)] + suffix


def _content_of(files: Files, name: str) -> Content:
    last = name.rpartition("/")[2]
    return Content(last, partial(files.open, name), partial(files.remote, name))
