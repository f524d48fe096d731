"""One file of a sample, wherever it lies: in a folder, a bucket, an archive or a table."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Self

from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.ranged_file import Remote

if TYPE_CHECKING:
    from st_trainer.data.boxes import Box


@dataclass(frozen=True)
class Content:
    """A file that may be opened, as often as wanted, from several threads."""

    name: str
    """The last part of its path: what people know it by. Its end tells the kind."""
    open: Callable[[], BinaryIO]
    """Raises ``FileNotFoundError`` where there is none, another ``OSError`` where it cannot."""
    remote: Callable[[], Remote | None] = lambda: None
    """Where it is large and lies elsewhere: how to read of it only what is needed."""
    box: "Callable[[], Box | None]" = lambda: None
    """What a cut is to keep of it."""

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The file at ``path``."""
        return cls(path.name, lambda: path.open("rb"))

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> Self:
        """``content`` in memory."""
        return cls(name, partial(io.BytesIO, content))

    @property
    def suffix(self) -> str:
        """The end of its name, in lower case."""
        return PurePosixPath(self.name).suffix.lower()

    def read_bytes(self) -> bytes:
        """All of it."""
        with self.open() as file:
            return file.read()

    def read_text(self, most: int) -> str:
        """The text in it, of at most ``most`` bytes.

        Raises:
            FileNotFoundError: there is none.
            UnreadableSampleError: it is longer, not UTF-8, or cannot be read.
        """
        try:
            with self.open() as file:
                raw = file.read(most + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UnreadableSampleError(f"{self.name} cannot be read: {error.strerror}") from None
        if len(raw) > most:
            raise UnreadableSampleError(f"{self.name} is longer than {most} bytes")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UnreadableSampleError(f"{self.name} is not UTF-8 text") from None
