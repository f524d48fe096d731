"""Objects of buckets on this machine, up to a bound; those that were not used for longest go."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import BinaryIO

_SPARE = 0.9
"""Once the bound is passed, room is made down to this share of it."""


class ObjectCache:
    """Files below ``folder``, at most ``limit`` bytes of them; processes may share it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._added: int | None = None
        """Bytes that are there as far as this process knows."""
        self._lock = Lock()

    def open(self, key: str, size: int, fetch: Callable[[BinaryIO], None]) -> BinaryIO:
        """The file of ``key``, open; where it is not there, ``fetch`` writes its ``size`` bytes.

        ``key`` names the content: another version has another key.
        """
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        path = self._folder / digest[:2] / digest
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return self._fetched(path, size, fetch)
        if os.fstat(file.fileno()).st_size != size:  # the machine lost power while it was written
            file.close()
            return self._fetched(path, size, fetch)
        os.utime(file.fileno())
        return file

    def _fetched(self, path: Path, size: int, fetch: Callable[[BinaryIO], None]) -> BinaryIO:
        if size > self._limit:
            alone = tempfile.TemporaryFile()  # noqa: SIM115 -- whoever asked closes it
            fetch(alone)
            alone.seek(0)
            return alone
        path.parent.mkdir(parents=True, exist_ok=True)
        self._make_room(size)
        descriptor, aside = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                fetch(file)
            opened = Path(aside).open("rb")  # noqa: SIM115 -- whoever asked closes it
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        return opened

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest until ``size`` bytes more fit."""
        with self._lock:
            if self._added is not None and self._added + size <= self._limit:
                self._added += size
                return
            found = sorted(filter(None, map(_age_and_size, self._folder.glob("??/*"))))
            total = sum(bytes_ for _, bytes_, _ in found)
            wanted = self._limit if total + size <= self._limit else self._limit * _SPARE
            for _, bytes_, path in found:
                if total + size <= wanted:
                    break
                path.unlink(missing_ok=True)
                total -= bytes_
            self._added = total + size


def _age_and_size(path: Path) -> tuple[int, int, Path] | None:
    try:
        found = path.stat()
    except FileNotFoundError:  # another process has removed it
        return None
    return found.st_mtime_ns, found.st_size, path
