"""Writes checkpoints while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from st_trainer.checkpoint import write_checkpoint
from st_trainer.snapshot import Snapshot

Written = Callable[[int, Path], None]
"""Told, in the thread of the training, of the step and the manifest of a complete checkpoint."""


class CheckpointWriter:
    """Writes one checkpoint at a time, in a thread of its own where ``background`` says so.

    What fails in the thread is raised at the next call. Leaving the context waits for the last.
    """

    def __init__(self, folder: Path, written: Written, *, background: bool) -> None:
        self._folder, self._written = folder, written
        self._pool = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._pending: tuple[int, Future[Path]] | None = None

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last checkpoint; its failure does not hide an error of the training."""
        try:
            self.finish()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"the last checkpoint was not written either: {failure}")
        finally:
            if self._pool:
                self._pool.shutdown()

    def write(self, snapshot: Snapshot) -> None:
        """Begin to write ``snapshot``, once the one before is complete."""
        self.finish()
        if self._pool is None:
            self._written(snapshot.step, write_checkpoint(snapshot, self._folder))
            return
        self._pending = snapshot.step, self._pool.submit(write_checkpoint, snapshot, self._folder)

    def poll(self) -> None:
        """Tell of the checkpoint in writing if it is complete."""
        if self._pending and self._pending[1].done():
            self.finish()

    def finish(self) -> None:
        """Wait until nothing is being written."""
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        self._written(step, future.result())
