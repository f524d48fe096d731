"""Cuts what a script prints into lines, holding no more of a line than is kept of it."""

from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_LINE_BYTES = 8_000
"""What is kept of one line; the rest is counted. Escaped, it fits a line of the journal."""


@dataclass(frozen=True)
class PrintedLine:
    """One line without its break."""

    text: str
    size: int
    """Bytes that were printed for it, as far as a carriage return did not overwrite them."""


class LineSplitter:
    """Takes pieces of output as they come and gives whole lines.

    A carriage return begins the line anew, as on a terminal, so that a progress bar becomes one
    line; before a line feed it means nothing.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._size = 0
        self._is_returned = False

    def feed(self, piece: bytes) -> Iterator[PrintedLine]:
        """The lines that ``piece`` completes."""
        *whole, rest = piece.split(b"\n")
        for part in whole:
            self._take(part)
            yield self._line()
        self._take(rest)

    def end(self) -> Iterator[PrintedLine]:
        """The last line where it has no break."""
        if self._size:
            yield self._line()

    def _take(self, part: bytes) -> None:
        first, *others = part.split(b"\r")
        self._append(first)
        for segment in others:
            self._is_returned = True
            self._append(segment)

    def _append(self, segment: bytes) -> None:
        if not segment:
            return
        if self._is_returned:
            self._clear()
        self._kept += segment[: LONGEST_LINE_BYTES - len(self._kept)]
        self._size += len(segment)

    def _line(self) -> PrintedLine:
        text = self._kept.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        if cut := self._size - len(self._kept):
            text += f"… ({cut} more bytes cut)"
        line = PrintedLine(text, self._size)
        self._clear()
        return line

    def _clear(self) -> None:
        self._kept.clear()
        self._size = 0
        self._is_returned = False
