"""Writes checkpoints of which every process writes its own part, while training goes on."""

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from st_shared.protocol.journal import ManifestFile
from st_trainer.adapters.adapter import trained
from st_trainer.checkpoint import aside_of, complete_checkpoint, write_files
from st_trainer.checkpoint_writer import Written
from st_trainer.errors import BadSpecError, CheckpointError, expected_error
from st_trainer.journal import Journal
from st_trainer.ranks import Ranks
from st_trainer.session import Session
from st_trainer.snapshot import Snapshot

_NUMBERS_KEPT = 4
"""Of each that is trained: itself, its average, and two moments of the optimiser."""


@dataclass(frozen=True)
class _Pending:
    step: int
    spec_sha256: str
    files: Future[list[ManifestFile]]


class ShardedWriter:
    """One checkpoint at a time, in a folder that all processes share.

    Every process must call the same methods in the same order. The first begins the folder, and
    writes the manifest once all have written. Where an error ends the training, a checkpoint that
    is still being written is left without a manifest.
    """

    def __init__(self, folder: Path, ranks: Ranks, written: Written, *, background: bool) -> None:
        self._folder, self._ranks, self._written = folder, ranks, written
        self._background = background
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: _Pending | None = None

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last checkpoint, unless an error ended the training."""
        try:
            if error is None:
                self.finish()
        finally:
            self._pool.shutdown()

    def begin(self, step: int) -> None:
        """Make room for the checkpoint of ``step``, once the one before is complete."""
        self.finish()
        if self._ranks.is_first:
            aside = aside_of(self._folder, step)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
        self._ranks.wait()

    def write(self, snapshot: Snapshot) -> None:
        """Begin to write this process's part."""
        aside = aside_of(self._folder, snapshot.step)
        files = self._pool.submit(write_files, snapshot, aside)
        self._pending = _Pending(snapshot.step, snapshot.spec_sha256, files)
        if not self._background:
            self.finish()

    def poll(self) -> None:
        """Complete the checkpoint in writing if all have written."""
        if self._pending and not self._ranks.any(not self._pending.files.done()):
            self.finish()

    def finish(self) -> None:
        """Wait until nothing is being written.

        Raises:
            CheckpointError: another process could not write its part.
            Exception: what kept this process from writing its own.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        error = pending.files.exception()
        told = self._ranks.gather(_said(error) if error else pending.files.result())
        if error:
            raise error
        files = self._all(told)
        if self._ranks.is_first:
            manifest = complete_checkpoint(self._folder, pending.step, pending.spec_sha256, files)
            self._written(pending.step, manifest)

    @staticmethod
    def _all(told: Sequence[list[ManifestFile] | str]) -> list[ManifestFile]:
        """The files of all processes, in order."""
        found: list[ManifestFile] = []
        for rank, each in enumerate(told):
            if isinstance(each, str):
                raise CheckpointError(f"process {rank} could not write its part: {each}")
            found += each
        return sorted(found, key=lambda file: file.path)


def is_sharded(session: Session, checkpoints: Path, journal: Journal) -> bool:
    """Whether every rank writes its own part of a checkpoint into the folder ``checkpoints``.

    Raises:
        BadSpecError: that is asked for, and they do not share the folder.
    """
    asked, ranks = session.spec.checkpoint.sharded, session.ranks
    wanted = session.spec.adapter_kind == "full" if asked is None else asked
    if not wanted or not session.strategy.spreads_state or ranks.count == 1:
        return False
    _, sharing = ranks.sharing(checkpoints)
    if not ranks.any(sharing != ranks.count):
        return True
    numbers = sum(map(session.strategy.count, trained(session.module).values()))
    said = (
        "not all processes see the folder of the run, so the first gathers checkpoints, and its "
        f"host needs memory for some {numbers * _NUMBERS_KEPT * 4 / 1e9:,.1f} GB"
    )
    if asked:
        raise BadSpecError(
            f"training.checkpoint.sharded: {said}: put --run-dir where all hosts see it, or drop "
            "the key"
        )
    journal.log(f"{said}: put --run-dir where all hosts see it", "warning")
    return False


def _said(error: BaseException) -> str:
    return str(expected_error(error) or f"{type(error).__name__}: {error}")
