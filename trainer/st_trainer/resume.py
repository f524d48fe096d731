"""Going on with a run: from a checkpoint of its folder, of another, or of a bucket."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from st_shared.spec.digest import spec_sha256
from st_trainer.checkpoint import (
    check_belongs,
    complete_checkpoints,
    restore,
    verify_checkpoint,
)
from st_trainer.errors import CheckpointError
from st_trainer.journal import Journal
from st_trainer.remote_checkpoints import RemoteCheckpoints
from st_trainer.run_folder import RunFolder
from st_trainer.session import Session

Resume = Literal["none", "latest"] | Path | RemoteCheckpoints
"""Start anew, go on from the newest whole checkpoint of the run folder or of a bucket, or from
one that is given."""


def go_on(session: Session, folder: RunFolder, journal: Journal, resume: Resume) -> None:
    """Restore ``session`` from the checkpoint that ``resume`` means.

    Raises:
        BadSpecError: another specification made the checkpoint.
        CheckpointError: the checkpoint that was given, or every one there is, is damaged.
        TrainerError: the bucket cannot be read; then no older one is taken instead.
    """
    if isinstance(resume, Path):
        restore_verified(session, resume)
        journal.log(f"resumed from {resume.name}, step {session.step}")
        return
    fetched = folder.fetched(session.ranks.rank)
    place, candidates = newest_first(folder, resume, fetched)
    for bring in candidates:
        try:
            checkpoint = bring()
            restore_verified(session, checkpoint)
        except CheckpointError as error:
            journal.log(f"{error}; trying the one before", "warning")
            continue
        finally:
            _forget(fetched)
        journal.log(f"resumed from {checkpoint.name}, step {session.step}")
        return
    if candidates:
        raise CheckpointError(
            f"every checkpoint in {place} is damaged; start anew in another --run-dir"
        )
    journal.log("no checkpoint to resume from; starting at step 0")


def _forget(fetched: Path) -> None:
    """Remove what was fetched; the last rank removes the folder that held it for each."""
    shutil.rmtree(fetched, ignore_errors=True)
    with suppress(OSError):  # another rank's is there still, or has just gone
        fetched.parent.rmdir()


def newest_first(
    folder: RunFolder, resume: Literal["none", "latest"] | RemoteCheckpoints, fetched: Path
) -> tuple[str, list[Callable[[], Path]]]:
    """Where the checkpoints lie, and what brings each of them to this machine."""
    if isinstance(resume, RemoteCheckpoints):
        keys = resume.newest_first()
        return resume.uri, [partial(resume.fetch, key, fetched) for key in keys]
    local = complete_checkpoints(folder.checkpoints)
    return str(folder.checkpoints), [partial(Path, checkpoint) for checkpoint in local]


def restore_verified(session: Session, checkpoint: Path) -> None:
    """Restore ``session`` from ``checkpoint`` once its checksums and specification are right."""
    manifest = verify_checkpoint(checkpoint)
    check_belongs(spec_sha256(session.spec), manifest, checkpoint)
    restore(session, checkpoint)
