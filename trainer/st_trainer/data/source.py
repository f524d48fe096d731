"""What an index is made of: names in order, a stamp of each, and what is read of it once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import Shape

STAMP_BYTES = 16
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Entry:
    """What the index keeps of one sample, or of a file that cannot be one."""

    name: str
    """Path below the folder of the dataset."""
    stamp: bytes
    """16 bytes that change with the file and with whatever lies beside it."""
    reason: str = ""
    """Why it cannot be used; empty where it can."""
    caption: str = ""
    shape: Shape = ()
    """Of its values: its bucket."""
    value_bytes: int = 0
    """Of its decoded values."""
    facts: SampleFacts | None = None
    """None where it cannot be used."""
    digest: bytes = bytes(DIGEST_BYTES)
    """SHA-256 over name, caption, content and facts."""
    changes: tuple[str, ...] = ()
    """What was done to make it fit, such as ``resized from 16x16``."""


class Source(Protocol):
    """Where the samples of a dataset are; called from several threads."""

    @property
    def identity(self) -> str:
        """Place, and every setting on which what is read depends."""

    def names(self) -> Iterator[str]:
        """Names of all files that may be samples, in order of code points, each once."""

    def stamp(self, name: str) -> bytes:
        """16 bytes that change when ``read`` may answer something else; cheap."""

    def read(self, name: str, stamp: bytes) -> Entry:
        """The sample ``name``, or the reason why it cannot be used."""
