"""What an index is made of: names in order, a stamp of each, and what is read of it once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from st_trainer.data.buckets import Size
from st_trainer.data.digests import CONTENT_BYTES
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import Bucket, Shape

STAMP_BYTES = 16
DIGEST_BYTES = 32


@dataclass(frozen=True)
class Entry:
    """What the index keeps of one sample, or of a file that cannot be one."""

    name: str
    """What the sample is called in its dataset, such as its path below the folder."""
    stamp: bytes
    """16 bytes that change with the file and with whatever lies beside it."""
    reason: str = ""
    """Why it cannot be used; empty where it can."""
    damaged: bool = False
    """Whether that is because its file cannot be decoded."""
    captions: tuple[str, ...] = ()
    """One or more where it can be used."""
    shape: Shape = ()
    """Of its values."""
    references: tuple[Size, ...] = ()
    """Of the pictures beside it, where they are not as large as it is."""
    value_bytes: int = 0
    """Of its decoded values."""
    facts: SampleFacts | None = None
    """None where it cannot be used."""
    digest: bytes = bytes(DIGEST_BYTES)
    """SHA-256 over name, captions, content and facts."""
    content: bytes = bytes(CONTENT_BYTES)
    """``content_digest`` of its values as the model wants them, whatever it is called."""
    conditioning: bytes = bytes(CONTENT_BYTES)
    """The same of its conditioning picture; zeros where it has none."""
    changes: tuple[str, ...] = ()
    """What was done to make it fit, such as ``resized from 16x16``."""

    @property
    def bucket(self) -> Bucket:
        """What it shares with those that may be in one batch with it."""
        return Bucket(self.shape, self.references)


class Entries(Protocol):
    """What can be listed, stamped and read into entries; called from several threads."""

    @property
    def identity(self) -> str:
        """Place, and every setting on which what is read depends."""

    def names(self) -> Iterator[str]:
        """Names of all that may be samples, always in the same order, each once."""

    def stamp(self, name: str) -> bytes:
        """16 bytes that change when ``read`` may answer something else; cheap."""

    def read(self, name: str, stamp: bytes) -> Entry:
        """The sample ``name``, or the reason why it cannot be used."""
