"""Turns what a source holds into samples: once for the index, and again for every batch."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.buckets import Centring, Size
from st_trainer.data.caption_text import cleaned
from st_trainer.data.conditioning import (
    check_conditioning,
    check_same_aspect,
    read_conditioning,
)
from st_trainer.data.content import Content
from st_trainer.data.damaged import begins_well
from st_trainer.data.digests import CONTENT_BYTES, content_digest
from st_trainer.data.entry import Entry
from st_trainer.data.facts import SampleFacts
from st_trainer.data.kept import Kept
from st_trainer.data.lyrics import with_lyrics
from st_trainer.data.masks import check_mask, read_mask
from st_trainer.data.medium import (
    DamagedSampleError,
    FoundSample,
    Medium,
    Shape,
    UnreadableSampleError,
)
from st_trainer.data.source import Source
from st_trainer.data.suitable import check_suitable
from st_trainer.errors import BadDataError, DamagedLaterError


class Reader:
    """The samples of one dataset."""

    def __init__(self, source: Source, dataset: DatasetSpec, medium: Medium, kept: Kept) -> None:
        self._source = source
        self._dataset = dataset
        self._medium = medium
        self._kept = kept

    @property
    def identity(self) -> str:
        """The source's, kind and size of the samples, which are wanted, and what captions are."""
        settings = self._dataset.captions.model_dump(
            exclude={"shuffle", "separator", "keep_first", "dropout"}  # matter when one is drawn
        )
        fit = self._dataset.conditioning_fit
        return repr((self._source.identity, self._medium, self._dataset.only, fit, settings))

    def names(self) -> Iterator[str]:
        """Those of the source."""
        return self._source.names()

    def stamp(self, name: str) -> bytes:
        """That of the source."""
        return self._source.stamp(name)

    def read(self, name: str, stamp: bytes) -> Entry:
        """The sample, decoded once; its values are kept as long as there is room."""
        try:
            return self._read(name, stamp)
        except UnreadableSampleError as error:
            return Entry(name, stamp, str(error), isinstance(error, DamagedSampleError))
        except OSError as error:
            return Entry(name, stamp, reason=f"it cannot be read: {error.strerror or error}")

    def delete(self, name: str) -> None:
        """Remove the file of the sample, as the source does."""
        self._source.delete(name)

    def is_damaged(self, name: str) -> bool:
        """Whether the file of the sample is there as a whole, begins as its kind, and is damaged.

        Raises:
            OSError: it cannot be read, so nobody knows.
        """
        content = self._source.sample(name)
        if not begins_well(content):
            return False
        try:
            self._medium.read(content)
        except DamagedSampleError:
            return True
        except UnreadableSampleError:
            pass
        return False

    def values(self, name: str, shape: Shape) -> NDArray[Any]:
        """The values of the sample, which were of ``shape`` when it was read.

        Raises:
            DamagedLaterError: nobody has decoded it before, and it is damaged.
            BadDataError: it has changed since.
        """
        key = (id(self), name)
        if (kept := self._kept.get(key)) is not None:
            return kept
        content = self._source.sample(name)
        with _as_it_was(name, content):
            values = self._medium.read(content).values
            _check_shape(values, shape)
        self._kept.offer(key, values)
        return values

    def first_frame(self, name: str, shape: Shape) -> NDArray[Any]:
        """The first frame of a video of ``shape``, bytes ``(C, H, W)``; raises as ``values``."""
        if (kept := self._kept.get((id(self), name))) is not None:
            first: NDArray[Any] = kept[:, 0]
            return first
        content = self._source.sample(name)
        with _as_it_was(name, content):
            found = self._medium.first_frame(content)
            _check_shape(found, (shape[0], *shape[2:]))
        return found

    def mask(self, name: str, size: Size, facts: SampleFacts) -> Tensor:
        """The mask of the sample, ``(1, H, W)``, 0 to 1; 1 everywhere where there is none."""
        kind = self._dataset.mask_kind
        return read_mask(self._source.mask(name), size, self._centring(name, facts), kind)

    def conditioning(self, name: str, size: Size, facts: SampleFacts) -> Tensor:
        """Its conditioning picture, ``(3, H, W)``, 0 to 1.

        Raises:
            DamagedLaterError: nobody has decoded it before, and it is damaged.
            BadDataError: it cannot be read.
        """
        centring = self._centring(name, facts)
        return read_conditioning(self._source.conditioning(name), size, centring)

    def _centring(self, name: str, facts: SampleFacts) -> Centring:
        """Where the sample was cut; what lies beside it is cut there, too."""
        return self._medium.centring(self._source.sample(name).name, facts)

    def _read(self, name: str, stamp: bytes) -> Entry:
        source, medium = self._source, self._medium
        captions = cleaned(source.captions(name), self._dataset.captions)
        lyrics = source.lyrics(name)
        captions = tuple(with_lyrics(caption, lyrics) for caption in captions)
        read = medium.found(source.sample(name))
        check_suitable(read.facts, self._dataset.only)
        shape = read.shape
        parts = [os.fsencode(name), *_texts(captions), str(shape).encode(), read.identity]
        conditioning = bytes(CONTENT_BYTES)
        references: tuple[Size, ...] = ()
        if mask := source.mask(name):
            check_mask(mask, medium, shape, self._centring(name, read.facts))
            parts.append(mask.read_bytes())
        if picture := source.conditioning(name):
            size, identity = self._conditioning(name, picture, read)
            parts.append(identity)
            cut = repr((size, self._centring(name, read.facts))).encode()
            conditioning = content_digest(cut, parts[-1])
            if size != medium.area(shape):
                references = (size,)
                parts.append(repr(references).encode())
        if read.values is not None:
            self._kept.offer((id(self), name), read.values)
        entry = _entry(name, stamp, captions, read, (_digest(parts), conditioning))
        return replace(entry, references=references)

    def _conditioning(self, name: str, picture: Content, read: FoundSample) -> tuple[Size, bytes]:
        """The size that a conditioning picture gets, and its bytes, or what stands for them.

        It is known to be good then, or seems so by its header.
        """
        strict = self._dataset.conditioning_fit == "strict"
        sizes = self._medium.sizes_beside(read.shape, strict=strict)
        found = check_conditioning(picture, sizes, self._centring(name, read.facts))
        if strict:
            check_same_aspect(found.facts, read.facts)
        height, width = found.facts.size
        return (height, width), found.identity


@contextmanager
def _as_it_was(name: str, content: Content) -> Iterator[None]:
    """What it means that a sample of the index cannot be decoded."""
    try:
        yield
    except (UnreadableSampleError, OSError) as error:
        if content.remote() and isinstance(error, UnreadableSampleError):
            raise DamagedLaterError(name, str(error)) from None
        raise BadDataError(f"{name} changed during the run: {error}") from None


def _check_shape(values: NDArray[Any], shape: Shape) -> None:
    if values.shape != shape:
        raise UnreadableSampleError("it has another aspect")


def _entry(
    name: str,
    stamp: bytes,
    captions: tuple[str, ...],
    read: FoundSample,
    digests: tuple[bytes, bytes],
) -> Entry:
    """``digests`` are those of the whole sample and of its conditioning picture."""
    return Entry(
        name,
        stamp,
        captions=captions,
        shape=read.shape,
        value_bytes=read.value_bytes,
        facts=read.facts,
        digest=digests[0],
        content=read.content,
        conditioning=digests[1],
        changes=read.changes,
    )


def _texts(captions: tuple[str, ...]) -> list[bytes]:
    """A single caption as it is, so that another one of the same text is the same sample."""
    return [caption.encode() for caption in captions]


def _digest(parts: list[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
