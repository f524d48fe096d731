"""Deletes damaged files, where a dataset says so."""

from collections.abc import Sequence
from typing import Protocol

from st_trainer.data.content import Content
from st_trainer.data.index import Index

_MARKS = (
    (0, b"\x89PNG"), (0, b"\xff\xd8\xff"), (8, b"WEBP"),
    (4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "),
    (8, b"WAVE"), (0, b"fLaC"), (0, b"OggS"), (0, b"ID3"), (0, b"FORM"),
)  # fmt: skip
"""Bytes at a place by which files of pictures, videos and sounds are known."""
DELETED = "deleted"
_LONGEST = 12
_PIECE_BYTES = 1 << 20


def begins_well(content: Content) -> bool:
    """Whether a file is empty, or begins as pictures, videos or sounds do; all of it is read.

    One that does not is of another kind, however it is called: it may be good for something else.

    Raises:
        OSError: it cannot be read to its end.
    """
    with content.open() as file:
        beginning = file.read(_LONGEST)
        while file.read(_PIECE_BYTES):
            pass
    return not beginning or any(beginning.startswith(mark, at) for at, mark in _MARKS)


class Deletes(Protocol):
    """Looks at the samples of a dataset once more, and deletes them."""

    def stamp(self, name: str) -> bytes:
        """What changes with the file."""

    def is_damaged(self, name: str) -> bool:
        """Whether it is damaged, or ``OSError``."""

    def delete(self, name: str) -> None:
        """Remove it, or ``OSError``."""


def delete_damaged(index: Index, samples: Deletes) -> dict[str, str]:
    """Delete what ``index`` has as damaged and is so still; what became of each, by name.

    A file that has changed since it was read may be one that is being written: it stays.
    """
    found = {}
    for entry in index.skipped():
        if not entry.damaged or samples.stamp(entry.name) != entry.stamp:
            continue
        try:
            if samples.is_damaged(entry.name) and samples.stamp(entry.name) == entry.stamp:
                samples.delete(entry.name)
                found[entry.name] = DELETED
        except OSError as error:
            found[entry.name] = f"not deleted: {error.strerror or error}"
    return found


def by_all(told: Sequence[dict[str, str]]) -> dict[str, str]:
    """What became of the files, where several processes have deleted the same ones at once."""
    found: dict[str, str] = {}
    for each in told:
        found |= {name: text for name, text in each.items() if found.get(name) != DELETED}
    return found
