"""Which artifacts this process is verifying, so that none is read twice at one time.

Verifying may take minutes, and an answer may be lost on its way. So workers do not wait long for
one, but call again: while the first call is at work they are told so, and once it is done, that.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from st_controller.errors import StillVerifying


class Verifications:
    """Taken by one call for each artifact; calls of other processes are not known here."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: set[str] = set()

    @contextmanager
    def alone(self, artifact_ids: Iterable[str]) -> Iterator[None]:
        """Hold these artifacts, by their ids, while the block runs.

        Raises:
            StillVerifying: an earlier call holds one of them.
        """
        ids = set(artifact_ids)
        with self._lock:
            if busy := ids & self._under_way:
                raise StillVerifying(f"{len(busy)} of these files are being verified")
            self._under_way |= ids
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= ids
