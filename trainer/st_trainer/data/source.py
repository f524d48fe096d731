"""What a dataset is made of, whatever holds it: names in order, and the contents of each."""

from collections.abc import Iterator
from typing import Protocol

from st_trainer.data.content import Content


class Source(Protocol):
    """Where the samples of a dataset are; called from several threads.

    Whatever is missing or wrong with one sample is an ``UnreadableSampleError`` or an ``OSError``
    when it is asked for; a place that does not answer is a ``TrainerError``.
    """

    @property
    def identity(self) -> str:
        """Place, and every setting on which the contents depend."""

    def names(self) -> Iterator[str]:
        """Names of all that may be samples, always in the same order, each once.

        Raises:
            BadDataError: they cannot be listed.
        """

    def stamp(self, name: str) -> bytes:
        """``STAMP_BYTES`` that change when any content of the sample may have; cheap."""

    def sample(self, name: str) -> Content:
        """The picture, video or sound."""

    def delete(self, name: str) -> None:
        """Remove the picture, video or sound, unless it has changed; what lies beside it stays.

        Raises:
            OSError: it is no file of its own, is another one by now, or may not be removed.
        """

    def captions(self, name: str) -> list[str]:
        """Its captions, one or more, as they were written."""

    def mask(self, name: str) -> Content | None:
        """Its mask; None where the dataset has none."""

    def conditioning(self, name: str) -> Content | None:
        """The picture that a ControlNet reads with it; None where the dataset has none."""

    def lyrics(self, name: str) -> Content | None:
        """What is sung in it, which need not be there; None where the dataset has none."""
