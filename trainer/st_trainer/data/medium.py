"""What a model wants a sample to be, and how a file becomes one: images, videos, sounds."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from st_shared.media import Media
from st_trainer.data.buckets import CENTRE, Centring, Size
from st_trainer.data.digests import content_digest
from st_trainer.data.facts import SampleFacts

if TYPE_CHECKING:
    from st_trainer.data.content import Content

Shape = tuple[int, ...]
"""Of one sample: ``(C, H, W)``, ``(C, F, H, W)`` or ``(C, L)``. A batch holds samples of one."""


@dataclass(frozen=True)
class Bucket:
    """What samples have in common that may be in one batch: all of their tensors can be stacked."""

    shape: Shape
    references: tuple[Size, ...] = ()
    """Of the pictures beside them, where they have sizes of their own; else they are as large."""


class UnreadableSampleError(Exception):
    """The file or its caption cannot be used; the message says why."""


class DamagedSampleError(UnreadableSampleError):
    """The file itself cannot be decoded, whatever is wanted of it."""


@dataclass(frozen=True)
class ReadSample:
    """One file as the model wants it."""

    values: NDArray[Any]
    """``(C, H, W)``, ``(C, F, H, W)`` or ``(C, L)``: bytes 0 to 255, or floats -1 to 1."""
    identity: bytes
    """What a checksum is taken over: the same wherever the file is read."""
    changes: tuple[str, ...]
    """What was done to make it fit, such as ``resized from 16x16``."""
    facts: SampleFacts


@dataclass(frozen=True)
class FoundSample:
    """What an index keeps of a sample."""

    shape: Shape
    value_bytes: int
    """Of its decoded values."""
    identity: bytes
    """What a checksum is taken over: the same wherever the file is read."""
    content: bytes
    """16 bytes that tell its values from all others, whatever the file is called."""
    changes: tuple[str, ...]
    facts: SampleFacts
    values: NDArray[Any] | None = None
    """None where only the header was read."""

    @classmethod
    def decoded(cls, read: ReadSample) -> Self:
        """Of a sample that was decoded: its content is that of its values."""
        values = read.values
        content = content_digest(
            repr((values.shape, values.dtype.str)).encode(), np.ascontiguousarray(values).data
        )
        return cls(
            values.shape, values.nbytes, read.identity, content, read.changes, read.facts, values
        )


class Medium(ABC):
    """Reads files of one kind in the shape that a model wants."""

    kind: ClassVar[Media]
    noun: ClassVar[str]
    formats: ClassVar[str]
    """What is read, in words, such as ``PNG, JPEG or WebP image``."""

    @property
    @abstractmethod
    def suffixes(self) -> frozenset[str]:
        """Ends of the names of files that may be read, in lower case."""

    def area(self, shape: Shape) -> Size:
        """Height and width of a sample of ``shape``, which a mask beside it gets.

        Raises:
            UnreadableSampleError: samples of this kind have none.
        """
        del shape
        raise UnreadableSampleError(f"masks are for pictures and videos, not for {self.noun}s")

    def sizes_beside(self, shape: Shape, *, strict: bool) -> Sequence[Size]:
        """Sizes of which a conditioning picture beside a sample of ``shape`` gets the nearest.

        ``strict``: it shows the same place, so it is cut as its sample is.
        """
        del strict
        return (self.area(shape),)

    def centring(self, name: str, facts: SampleFacts) -> Centring:
        """Where the sample in a file of ``name`` was cut, and what lies beside it with it."""
        del name, facts
        return CENTRE

    def first_frame(self, content: "Content") -> NDArray[Any]:
        """The first frame of the sample in a file, bytes ``(C, H, W)``; no other is decoded.

        Raises:
            UnreadableSampleError: it cannot be decoded, or samples of this kind have none.
            OSError: it cannot be opened.
        """
        del content
        raise UnreadableSampleError(f"{self.noun}s have no frames")

    @abstractmethod
    def read(self, content: "Content") -> ReadSample:
        """The sample in a file.

        Raises:
            UnreadableSampleError: it is of another kind, damaged, too large or too short.
            OSError: it cannot be opened.
        """

    def found(self, content: "Content") -> FoundSample:
        """The sample in a file for an index, which reads of a large remote one what it must.

        Raises:
            UnreadableSampleError: it is of another kind, damaged, too large or too short; damage
                behind what was read shows when it is read for a batch.
            OSError: it cannot be opened.
        """
        return FoundSample.decoded(self.read(content))
