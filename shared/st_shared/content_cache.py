"""Content on this host's disk by its digest: bounded in size, shared by any number of processes.

``KIND/DIGEST`` is a file or folder that is whole; ``records/`` holds the size of each and, as its
time of change, when it was used last; ``users/DIGEST/`` has a file for each user that needs the
content, touched now and then as long as it does; ``staging/DIGEST`` is what is being fetched, which
a later try goes on with; ``locks/DIGEST`` is a lock of the kernel, so that it never outlives the
process that holds it.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

from st_shared.durable import PRIVATE, write_whole

KINDS = ("datasets", "files")
"""Folders of entries: unpacked datasets, and single files."""

_FOLDERS = (*KINDS, "records", "users", "locks", "staging", "reserved", "trash")
_SILENCE_SECONDS = 86_400.0
"""After which a user counts as gone: its host may have an agent again before that."""

_OURS = re.compile(r"\.?([0-9a-f]{64}|[0-9a-f]{32})(\.partial)?")
"""Names in these folders: digests, UUIDs in the trash, and what is written aside."""


class CacheFullError(RuntimeError):
    """What is in use leaves no room; nothing was fetched."""


@dataclass(frozen=True)
class _Entry:
    digest: str
    size: int
    used_at: int
    """Nanoseconds."""


class ContentLock:
    """The right to fetch, take into use or evict one content; ``close`` gives it back."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


class ContentCache:
    """One folder; every process on it must be given the same ``max_bytes``.

    The processes may see it in different containers, so nothing in it names a file outside.

    Args:
        root: the folder; made when it is missing.
        max_bytes: what all entries together may take; what is being fetched counts too.
        now: seconds since 1970.
        free: bytes that the disk of a folder has free.
    """

    def __init__(
        self,
        root: Path,
        max_bytes: int,
        *,
        now: Callable[[], float] = time.time,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self.root, self.max_bytes, self._now, self._free = root, max_bytes, now, free
        for name in _FOLDERS:
            (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def try_lock(self, digest: str) -> ContentLock | None:
        """The lock of a content, or none while anybody, here or in another process, has it."""
        descriptor = os.open(self.root / "locks" / digest, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return ContentLock(descriptor)

    def path(self, kind: str, digest: str) -> Path:
        """Where the content is, once it is there."""
        return self.root / kind / digest

    def has(self, kind: str, digest: str) -> bool:
        """Whether it need not be fetched."""
        return self.path(kind, digest).exists()

    def staging(self, digest: str) -> Path:
        """Where to bring the content together; for the holder of its lock."""
        return self.root / "staging" / digest

    def use(self, digest: str, user: str | None) -> None:
        """Note that it is used now, and until ``release``; for the holder of its lock.

        ``user`` is a name that nobody else in any container has, such as an attempt's id.
        """
        with suppress(FileNotFoundError):
            os.utime(self.root / "records" / digest)
        if user is not None:
            folder = self.root / "users" / digest
            folder.mkdir(exist_ok=True)
            self._touch(folder / user)
            for mark in _listed(folder):
                if not self._is_alive(mark):
                    mark.unlink(missing_ok=True)

    def go_on_using(self, user: str) -> None:
        """Say that ``user`` still needs what it has taken into use; at least every few hours."""
        for mark in (self.root / "users").glob(f"*/{user}"):
            with suppress(FileNotFoundError):  # it is released just now
                os.utime(mark, (self._now(), self._now()))

    def release(self, user: str) -> None:
        """Say that ``user`` needs nothing any more."""
        for mark in (self.root / "users").glob(f"*/{user}"):
            mark.unlink(missing_ok=True)

    def admit(self, kind: str, digest: str, whole: Path) -> Path:
        """Take ``whole``, which was verified, as the content; for the holder of its lock."""
        size = _size_of(whole)
        write_whole(self.root / "records" / digest, json.dumps({"size": size}))
        target = self.path(kind, digest)
        whole.rename(target)
        (self.root / "reserved" / digest).unlink(missing_ok=True)
        return target

    def drop(self, kind: str, digest: str) -> None:
        """Remove a content that is damaged; for the holder of its lock."""
        _remove(self.path(kind, digest))
        (self.root / "records" / digest).unlink(missing_ok=True)

    def capacity(self, spare: int = 0) -> int:
        """Bytes that all entries together may take, as the bound and the disk have it now.

        ``spare`` is what is to stay free on the disk.
        """
        there = sum(entry.size for entry in self._entries()) + _size_of(self.root / "staging")
        return max(0, min(self.max_bytes, there + self._free(self.root) - spare))

    def reserve(self, digest: str, size: int) -> None:
        """Make room for what its holder of the lock will fetch; the longest unused goes first.

        Raises:
            CacheFullError: what is in use, or being fetched, or else on the disk leaves too little.
        """
        with self._room():
            capacity = self.capacity()
            if self._taken(digest) + size > capacity:
                self._make_room(digest, size, capacity)
            write_whole(self.root / "reserved" / digest, str(size))

    def shrink(self) -> tuple[int, int]:
        """Come back within the bound, where that was lowered; entries removed, bytes freed.

        What somebody who was killed had begun to remove goes as well.
        """
        with self._room():
            before = self._unused_first()
            for victim in before:
                if self._taken("") <= self.max_bytes:
                    break
                self._evict(victim.digest)
            for left in (self.root / "trash").iterdir():
                _remove(left)
            kept = {entry.digest for entry in self._entries()}
        gone = [entry.size for entry in before if entry.digest not in kept]
        return len(gone), sum(gone)

    def clear(self) -> None:
        """Remove every content and the folder itself; what is not of a cache stays."""
        for name in _FOLDERS:
            for path in _listed(self.root / name):
                if _OURS.fullmatch(path.name):
                    _remove(path)
        (self.root / "room").unlink(missing_ok=True)
        for folder in (*(self.root / name for name in _FOLDERS), self.root):
            with suppress(OSError):  # something stays in it
                folder.rmdir()

    def _make_room(self, digest: str, size: int, capacity: int) -> None:
        """Evict what is needed for ``size``, or nothing where all that may go is too little."""
        victims = [each for each in self._unused_first() if self._may_go(each.digest)]
        evictable = sum(each.size for each in victims if each.digest != digest)
        self._must_fit(size, self._taken(digest) - evictable, capacity)
        for victim in victims:
            if self._taken(digest) + size <= capacity:
                break
            self._evict(victim.digest)
        self._must_fit(size, self._taken(digest), capacity)

    def _unused_first(self) -> list[_Entry]:
        return sorted(self._entries(), key=lambda entry: entry.used_at)

    def _entries(self) -> Iterator[_Entry]:
        for path in (self.root / "records").iterdir():
            with suppress(FileNotFoundError, ValueError, KeyError):
                size = int(json.loads(path.read_bytes())["size"])
                yield _Entry(path.name, size, path.stat().st_mtime_ns)

    def _taken(self, but: str) -> int:
        """Bytes of all entries, and of what others are fetching."""
        taken = sum(entry.size for entry in self._entries() if entry.digest != but)
        for path in (self.root / "reserved").iterdir():
            if path.name == but:
                continue
            lock = self.try_lock(path.name)
            if lock is None:
                with suppress(FileNotFoundError, ValueError):
                    taken += int(path.read_text())
                continue
            with lock:  # who was fetching it is gone; the next one will fetch it anew
                path.unlink(missing_ok=True)
                _remove(self.staging(path.name))
                _remove(self.root / "staging" / f".{path.name}.partial")
        return taken

    def _evict(self, digest: str) -> None:
        """Remove an entry, unless somebody has its lock or needs it."""
        lock = self.try_lock(digest)
        if lock is None:
            return
        with lock:
            if self._is_needed(digest):
                return
            for kind in KINDS:
                aside = self.root / "trash" / uuid4().hex
                with suppress(FileNotFoundError):
                    self.path(kind, digest).rename(aside)
                    _remove(aside)
            (self.root / "records" / digest).unlink(missing_ok=True)
            shutil.rmtree(self.root / "users" / digest, ignore_errors=True)

    def _may_go(self, digest: str) -> bool:
        """Whether nobody has its lock or needs it."""
        lock = self.try_lock(digest)
        if lock is None:
            return False
        with lock:
            return not self._is_needed(digest)

    def _is_needed(self, digest: str) -> bool:
        return any(map(self._is_alive, _listed(self.root / "users" / digest)))

    def _is_alive(self, mark: Path) -> bool:
        """Whether its user was heard of of late; one that was killed for good is not."""
        try:
            return self._now() - mark.stat().st_mtime < _SILENCE_SECONDS
        except FileNotFoundError:
            return False

    def _touch(self, mark: Path) -> None:
        mark.touch(mode=PRIVATE)
        os.utime(mark, (self._now(), self._now()))

    def _must_fit(self, size: int, taken: int, capacity: int) -> None:
        if taken + size > capacity:
            is_bound = capacity == self.max_bytes
            mend = "give it more with --cache-gb" if is_bound else "free some of its disk"
            raise CacheFullError(
                f"{size / 2**30:.2f} GiB are needed in the cache {self.root}, of whose "
                f"{capacity / 2**30:.2f} GiB {taken / 2**30:.2f} are in use: {mend}"
            )

    @contextmanager
    def _room(self) -> Iterator[None]:
        """One at a time makes room; it takes moments, as nothing is fetched meanwhile."""
        descriptor = os.open(self.root / "room", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def default_bytes(folder: Path) -> int:
    """Half of the disk that ``folder`` is on."""
    return shutil.disk_usage(folder).total // 2


def _size_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def _listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
