"""One controller a data folder: a lock that the kernel frees when the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderInUseError(RuntimeError):
    """Another controller runs on this data folder."""


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Hold ``folder`` as long as the block lasts.

    Raises:
        FolderInUseError: another process holds it.
    """
    path = folder / "controller.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "unknown"
            raise FolderInUseError(
                f"a controller (process {holder}) already runs on {folder}; stop it, or give "
                "another folder with --data"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
