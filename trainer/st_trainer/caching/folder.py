"""The entries of one encoder: found in files, kept in new ones, made anew where one is damaged."""

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torch import Tensor

from st_trainer.caching.bucket import SharedShards
from st_trainer.caching.known_keys import KnownKeys
from st_trainer.caching.room import Room
from st_trainer.caching.shard_file import (
    SUFFIX,
    DamagedShardError,
    Entry,
    ShardFile,
    write_shard,
)
from st_trainer.errors import TrainerError

SHARD_BYTES = 32 << 20
"""Entries are written once they have as many bytes; a kill loses at most so much."""
SHARD_ENTRIES = 1024
SHARD_SECONDS = 30.0
"""Or once the first of them has waited for so long."""
_OPEN = 64
"""Files that are mapped at a time."""
_HEADER_BYTES = 180
"""What a file tells of a tensor: name, type, shape, place, checksum."""
_TOUCH_SECONDS = 600.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class CacheFolder:
    """Entries by key, below a folder that other processes read and write as well."""

    def __init__(
        self,
        folder: Path,
        room: Room,
        said: Callable[[str], None],
        shared: SharedShards | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``said`` hears what went wrong; ``shared`` is where other machines keep the same.

        Raises:
            TrainerError: the folder cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainerError(
                f"cannot make the folder of the cache {folder}: {error.strerror}; let this user "
                "write there, or name another in ST_CACHE_DIR"
            ) from error
        self.folder, self.shared = folder, shared
        self._room, self._said, self._clock = room, said, clock
        self._known = KnownKeys()
        self._names: list[str] = []
        self._open: OrderedDict[int, ShardFile] = OrderedDict()
        self._touched: dict[int, float] = {}
        self._pending: dict[bytes, Entry] = {}
        self._pending_bytes, self._pending_since = 0, 0.0
        self._written: tuple[Future[Path], dict[bytes, Entry]] | None = None
        self._writer = ThreadPoolExecutor(1, "cache")
        self._full = False
        self._changed = -1
        self.scan()

    @property
    def is_full(self) -> bool:
        """Whether something was not kept for want of room."""
        return self._full

    def scan(self, *, surely: bool = False) -> None:
        """Take in what others have written since; ``surely``: also within the same moment."""
        changed = self.folder.stat().st_mtime_ns
        if changed == self._changed and not surely:
            return
        self._changed = changed
        known = set(self._names)
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.name not in known:
                self.take(path.name)

    def take(self, name: str) -> None:
        """Know the entries of the file ``name``, unless it is damaged."""
        number = len(self._names)
        self._names.append(name)
        try:
            self._known.add(self._file(number).keys, number)
        except DamagedShardError as error:
            self._drop(number, error)
        except FileNotFoundError:  # another process has removed it
            pass

    def has(self, key: bytes) -> bool:
        """Whether the entry is there, as far as is known without reading it."""
        return self._is_not_yet_known(key) or self._known.find(key) is not None

    def lacks(self, keys: Sequence[bytes]) -> list[int]:
        """Places of those of ``keys`` that it has not; many at once, which is quicker."""
        unknown = np.flatnonzero(~self._known.known(keys)).tolist()
        return [place for place in unknown if not self._is_not_yet_known(keys[place])]

    def get(self, key: bytes) -> dict[str, Tensor] | None:
        """The entry of ``key``, on the CPU; none where there is none, or it is damaged."""
        if key in self._pending:
            return dict(self._pending[key])
        if self._written and key in self._written[1]:
            return dict(self._written[1][key])
        number = self._known.find(key)
        if number is None:
            self.scan()
            number = self._known.find(key)
        return None if number is None else self._read(key, number)

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an entry; it is on disk after ``flush`` at the latest."""
        if self._full or self.has(key):
            return
        if not self._pending:
            self._pending_since = self._clock()
        self._pending[key] = {field: each.detach().cpu() for field, each in entry.items()}
        self._pending_bytes += sum(each.nbytes + _HEADER_BYTES for each in entry.values())
        waited = self._clock() - self._pending_since
        if (
            self._pending_bytes >= SHARD_BYTES
            or len(self._pending) >= SHARD_ENTRIES
            or waited >= SHARD_SECONDS
        ):
            self._begin_to_write()

    def flush(self) -> None:
        """Return once every entry is on disk."""
        self._begin_to_write()
        self._end_of_writing()

    def fetch(self, names: Iterable[str]) -> None:
        """Bring files of the bucket here."""
        if self.shared is None:
            return
        for name in names:
            try:
                if self.shared.fetch(name, self.folder, self._room):
                    self.take(name)
            except DamagedShardError as error:
                self._said(f"cache.share: {error}; what it holds is made anew")

    def _is_not_yet_known(self, key: bytes) -> bool:
        """Whether the entry is there, but in no file that is whole."""
        return key in self._pending or (self._written is not None and key in self._written[1])

    def _begin_to_write(self) -> None:
        """Write what is pending in another thread, once it is done with what came before."""
        self._end_of_writing()
        if not self._pending:
            return
        entries, size = self._pending, self._pending_bytes
        self._pending, self._pending_bytes = {}, 0
        if not self._room.admit(size):
            self._stop_keeping("its bound, cache.max_gb, is reached")
            return
        self._written = self._writer.submit(self._write, entries), entries

    def _write(self, entries: dict[bytes, Entry]) -> Path:
        path = write_shard(self.folder, entries)
        if self.shared is not None:
            self.shared.keep(path)
        return path

    def _end_of_writing(self) -> None:
        if self._written is None:
            return
        future, _ = self._written
        try:
            path = future.result()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._stop_keeping(str(error.strerror))
        else:
            if path.name not in self._names:
                self.take(path.name)
        finally:
            self._written = None
        for text in self.shared.troubles() if self.shared else ():
            self._said(text)

    def _stop_keeping(self, why: str) -> None:
        if not self._full:
            self._said(f"{self.folder.parent.name}: nothing more is cached: {why}")
        self._full = True

    def _read(self, key: bytes, number: int) -> dict[str, Tensor] | None:
        if self._names[number]:
            try:
                return self._file(number).entry(key)
            except DamagedShardError as error:
                self._drop(number, error)
            except FileNotFoundError:  # it had to make room
                self._names[number] = ""
        self._known.add([key], -1)
        return None

    def _file(self, number: int) -> ShardFile:
        """The file of that number, open; that it is in use is noted now and then."""
        path = self.folder / self._names[number]
        file = self._open.get(number)
        if file is None:
            file = self._open[number] = ShardFile(path)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        if self._clock() - self._touched.get(number, float("-inf")) > _TOUCH_SECONDS:
            self._touched[number] = self._clock()
            if path.exists():
                os.utime(path)
        return file

    def _drop(self, number: int, error: DamagedShardError) -> None:
        """Remove a damaged file, and make its entries anew."""
        self._said(f"{self.folder.parent.name} in the cache are damaged and made anew: {error}")
        (self.folder / self._names[number]).unlink(missing_ok=True)
        if number in self._open:
            self._known.add(self._open.pop(number).keys, -1)
        self._names[number] = ""
