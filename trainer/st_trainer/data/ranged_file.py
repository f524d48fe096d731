"""A file of which only the pieces that are read are fetched."""

import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from st_trainer.data.medium import UnreadableSampleError
from st_trainer.errors import TrainerError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 16 << 10
FIRST_BYTES = 64 << 10
"""The first piece: it holds the header of nearly every picture."""
MOST_BYTES = 1 << 20
"""The largest piece that is fetched ahead of a reader who goes on and on."""
KEPT_BLOCKS = 1_024
"""Blocks that stay in memory; of others those that were not read for longest go first."""


class RangedFile(io.RawIOBase):
    """``size`` bytes, of which ``fetch`` gives a number from a place.

    Libraries call from C, where an exception is lost. So a failure looks like the end of the file
    to them, and is kept for whoever opened it: use ``Remote.opened``.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size, self._fetch = size, fetch
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._place = 0
        self._following = 0
        """The block behind the piece that was fetched last."""
        self._ahead = FIRST_BYTES // BLOCK_BYTES
        self.failure: OSError | TrainerError | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is fetched."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}
        place = bases[whence] + offset
        if place < 0:
            raise ValueError("before the beginning of the file")
        self._place = place
        return place

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill ``buffer`` as far as the file goes."""
        view = memoryview(buffer).cast("B")
        end = min(self._place + len(view), self._size)
        done = 0
        try:
            while self._place < end:
                number, within = divmod(self._place, BLOCK_BYTES)
                piece = self._block(number, end)[within : within + end - self._place]
                view[done : done + len(piece)] = piece
                done += len(piece)
                self._place += len(piece)
        except (OSError, TrainerError) as error:
            self.failure = error
            self._size = self._place  # nothing more is asked for
        return done

    def _block(self, number: int, end: int) -> bytes:
        """A block, fetched with those behind it where it is not here; ``end`` is wanted too."""
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        if self._place == self._following * BLOCK_BYTES:
            count = self._ahead
            self._ahead = min(2 * count, MOST_BYTES // BLOCK_BYTES)
        else:
            count, self._ahead = 1, 2
        wanted = min(-(-end // BLOCK_BYTES) - number, MOST_BYTES // BLOCK_BYTES)
        start = number * BLOCK_BYTES
        size = min(max(count, wanted) * BLOCK_BYTES, self._size - start)
        found = self._fetch(start, size)
        for at in range(0, size, BLOCK_BYTES):
            self._blocks[number + at // BLOCK_BYTES] = found[at : at + BLOCK_BYTES]
        self._following = number + -(-size // BLOCK_BYTES)
        while len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]


@dataclass(frozen=True)
class Remote:
    """A large file that lies elsewhere, so that it is better not fetched as a whole."""

    size: int
    version: bytes
    """Another one once the content is; the same wherever the same bytes lie, if the server's are
    made of them."""
    fetch: Callable[[int, int], bytes]
    """So many bytes from a place, exactly.

    Raises ``OSError`` where the file is gone or another one, ``TrainerError`` where nobody answers.
    """

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file. What could not be fetched is raised in place of what a library made of it."""
        file = RangedFile(self.size, self.fetch)
        try:
            yield cast("BinaryIO", file)
        except UnreadableSampleError:
            if file.failure:
                raise file.failure from None
            raise
        if file.failure:
            raise file.failure
