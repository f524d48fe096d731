"""Checkpoints: the whole state of a session in a folder that is complete or absent.

A checkpoint is written to a hidden folder, synced, given its manifest last, and renamed. Reading
one executes nothing: tensors are safetensors, the rest is JSON.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError

from st_shared.durable import sha256_of, sync, write_durably
from st_shared.protocol.journal import CheckpointManifest, ManifestFile
from st_shared.spec.training import CheckpointSpec
from st_trainer.errors import BadSpecError, CheckpointError
from st_trainer.put_back import put_back
from st_trainer.run_folder import step_name
from st_trainer.session import Session
from st_trainer.snapshot import STATE_NAME, Snapshot
from st_trainer.weights import write_tensors

MANIFEST_NAME = "manifest.json"
_READ_ERRORS = (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError)


def write_checkpoint(snapshot: Snapshot, checkpoints: Path) -> Path:
    """Write ``snapshot`` below ``checkpoints``; gives the path of the manifest."""
    aside = aside_of(checkpoints, snapshot.step)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    files = write_files(snapshot, aside)
    return complete_checkpoint(checkpoints, snapshot.step, snapshot.spec_sha256, files)


def aside_of(checkpoints: Path, step: int) -> Path:
    """The hidden folder in which the checkpoint of ``step`` grows."""
    return checkpoints / f".{step_name(step)}.partial"


def write_files(snapshot: Snapshot, aside: Path) -> list[ManifestFile]:
    """Write the files of ``snapshot`` into ``aside``; gives what the manifest tells of them."""
    names = [*snapshot.tensors]
    for file, tensors in snapshot.tensors.items():
        write_tensors(aside / file, tensors, snapshot.metadata.get(file))
    if snapshot.state:
        write_durably(aside / STATE_NAME, json.dumps(snapshot.state), mode=0o644)
        names.append(STATE_NAME)
    paths = [aside / name for name in sorted(names)]
    return [
        ManifestFile(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
        for path in paths
    ]


def complete_checkpoint(
    checkpoints: Path, step: int, spec_sha256: str, files: list[ManifestFile]
) -> Path:
    """Write the manifest of the checkpoint of ``step``, and give it its name; gives its path."""
    aside, final = aside_of(checkpoints, step), checkpoints / step_name(step)
    manifest = CheckpointManifest(step=step, spec_sha256=spec_sha256, files=files)
    write_durably(aside / MANIFEST_NAME, manifest.model_dump_json(indent=1), mode=0o644)
    if final.exists():  # a damaged one of the same step, which a resume has passed over
        shutil.rmtree(final)
    aside.rename(final)
    sync(checkpoints)
    return final / MANIFEST_NAME


def prune_checkpoints(checkpoints: Path, spec: CheckpointSpec) -> list[Path]:
    """Delete what ``spec`` keeps no longer; gives the deleted folders."""
    every = complete_checkpoints(checkpoints)
    kept = set(every[: spec.keep_last])
    if spec.keep_every:
        kept |= {folder for folder in every if step_of(folder) % spec.keep_every == 0}
    if spec.keep_best:
        kept |= set(sorted(every, key=_loss_of)[: spec.keep_best])
    deleted = [folder for folder in every if folder not in kept]
    for folder in deleted:
        # Without its manifest it counts as absent, however far the deletion gets.
        (folder / MANIFEST_NAME).unlink()
        shutil.rmtree(folder)
    return deleted


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(folder.name.removeprefix("step-"))


def _loss_of(folder: Path) -> tuple[float, int]:
    """Mean loss since the checkpoint before; of equal ones the newer comes first."""
    loss = _read_state(folder)["loss"]
    return (float("inf") if loss is None else loss), -step_of(folder)


def complete_checkpoints(checkpoints: Path) -> list[Path]:
    """Folders below ``checkpoints`` that have a manifest, newest step first."""
    found = {path.parent for path in checkpoints.glob(f"step-*/{MANIFEST_NAME}")}
    return sorted(found, key=step_of, reverse=True)


def verify_checkpoint(folder: Path) -> CheckpointManifest:
    """The manifest of ``folder``, once size and checksum of every file agree with it.

    Raises:
        CheckpointError: the manifest is missing or wrong, or a file is missing or damaged.
    """
    try:
        manifest = CheckpointManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise CheckpointError(f"{folder} is incomplete: {error.strerror}: its manifest") from None
    except ValidationError:
        raise CheckpointError(f"{folder} is damaged: its manifest cannot be read") from None
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file():
            raise CheckpointError(f"{folder} is incomplete: {file.path} is missing")
        if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
            raise CheckpointError(f"{folder} is damaged: {file.path} has another checksum")
    return manifest


def check_belongs(session_spec_sha256: str, manifest: CheckpointManifest, folder: Path) -> None:
    """Raise ``BadSpecError`` when another specification made the checkpoint."""
    if manifest.spec_sha256 != session_spec_sha256:
        raise BadSpecError(
            f"{folder} was made by another training specification; resume with the job file that "
            "made it, or start in another --run-dir"
        )


def restore(session: Session, folder: Path) -> None:
    """Put ``session`` into the state of the verified checkpoint ``folder``.

    Raises:
        BadDataError: the samples are no longer those that the checkpoint was trained on.
        CheckpointError: the files do not fit the session.
    """
    try:
        put_back(session, folder, _read_state(folder))
    except _READ_ERRORS as error:
        raise CheckpointError(f"{folder} cannot be restored: {error}") from error


def _read_state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / STATE_NAME).read_bytes())
    return state
