"""Deletes damaged files, where a dataset says so."""

from collections.abc import Sequence
from typing import Protocol

from st_trainer.data.content import Content
from st_trainer.data.file_marks import LONGEST, is_marked
from st_trainer.data.index import Index

DELETED = "deleted"
_PIECE_BYTES = 1 << 20


def begins_well(content: Content) -> bool:
    """Whether a file is empty, or begins as pictures, videos or sounds do; all of it is read.

    One that does not is of another kind, however it is called: it may be good for something else.

    Raises:
        OSError: it cannot be read to its end.
    """
    with content.open() as file:
        beginning = file.read(LONGEST)
        while file.read(_PIECE_BYTES):
            pass
    return not beginning or is_marked(beginning)


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
