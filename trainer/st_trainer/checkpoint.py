"""Checkpoints: the whole state of a session in a folder that is complete or absent.

A checkpoint is written to a hidden folder, synced, given its manifest last, and renamed. Reading
one executes nothing: tensors are safetensors, the rest is JSON.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from st_shared.durable import sha256_of, sync, write_durably
from st_shared.protocol.journal import CheckpointManifest, ManifestFile
from st_shared.spec.digest import spec_sha256
from st_trainer.data.sampler import Cursor
from st_trainer.errors import BadDataError, BadSpecError, CheckpointError
from st_trainer.history import LossHistory
from st_trainer.run_folder import step_name
from st_trainer.session import Session
from st_trainer.weights import WEIGHTS_NAME, module_tensors, write_tensors, write_weights

MANIFEST_NAME = "manifest.json"
_EMA, _OPTIMIZER, _RANDOM, _STATE = (
    "ema.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
)
_READ_ERRORS = (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError)


def save_checkpoint(session: Session, checkpoints: Path) -> Path:
    """Write the state of ``session`` below ``checkpoints``; gives the path of the manifest."""
    name = step_name(session.step)
    aside, final = checkpoints / f".{name}.partial", checkpoints / name
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    _write_state(session, aside)
    manifest = _manifest(session, aside)
    write_durably(aside / MANIFEST_NAME, manifest.model_dump_json(indent=1), mode=0o644)
    if final.exists():  # a damaged one of the same step, which a resume has passed over
        shutil.rmtree(final)
    aside.rename(final)
    sync(checkpoints)
    return final / MANIFEST_NAME


def prune_checkpoints(checkpoints: Path, keep_last: int) -> list[Path]:
    """Delete all but the newest ``keep_last`` checkpoints; gives the deleted folders."""
    deleted = complete_checkpoints(checkpoints)[keep_last:]
    for folder in deleted:
        # Without its manifest it counts as absent, however far the deletion gets.
        (folder / MANIFEST_NAME).unlink()
        shutil.rmtree(folder)
    return deleted


def complete_checkpoints(checkpoints: Path) -> list[Path]:
    """Folders below ``checkpoints`` that have a manifest, newest step first."""
    found = {path.parent for path in checkpoints.glob(f"step-*/{MANIFEST_NAME}")}
    return sorted(found, key=lambda folder: int(folder.name.removeprefix("step-")), reverse=True)


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
        state = _read_state(folder)
        if state["samples_sha256"] != session.samples.sha256:
            raise BadDataError(
                f"training.datasets: the samples have changed since {folder.name} was written; "
                "restore them, or start anew in another --run-dir"
            )
        session.module.load_state_dict(load_file(folder / WEIGHTS_NAME))
        if session.ema:
            session.ema.module.load_state_dict(load_file(folder / _EMA))
            session.ema.updates = state["ema_updates"]
        session.optimizer.load_state_dict(_optimizer_state(folder, state))
        _restore_random(session, load_file(folder / _RANDOM))
        session.move_sampler(Cursor(**state["cursor"]))
        session.history = LossHistory.restored(state["losses"])
        session.step = state["step"]
    except _READ_ERRORS as error:
        raise CheckpointError(f"{folder} cannot be restored: {error}") from error


def _write_state(session: Session, folder: Path) -> None:
    write_weights(folder / WEIGHTS_NAME, session.denoiser.with_module(session.module), session.step)
    if session.ema:
        write_tensors(folder / _EMA, module_tensors(session.ema.module))
    optimizer = session.optimizer.state_dict()
    write_tensors(
        folder / _OPTIMIZER,
        {
            f"{index}.{name}": tensor
            for index, moments in optimizer["state"].items()
            for name, tensor in moments.items()
        },
    )
    write_tensors(folder / _RANDOM, _random_state(session))
    state = {
        "step": session.step,
        "cursor": asdict(session.sampler.cursor),
        "samples_sha256": session.samples.sha256,
        "assets": session.denoiser.assets,
        "ema_updates": session.ema.updates if session.ema else 0,
        "optimizer_groups": optimizer["param_groups"],
        "losses": session.history.state,
        "torch": torch.__version__,
    }
    write_durably(folder / _STATE, json.dumps(state), mode=0o644)


def _manifest(session: Session, folder: Path) -> CheckpointManifest:
    files = [
        ManifestFile(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
    ]
    return CheckpointManifest(step=session.step, spec_sha256=spec_sha256(session.spec), files=files)


def _read_state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / _STATE).read_bytes())
    return state


def _optimizer_state(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / _OPTIMIZER).items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = tensor
    return {"state": moments, "param_groups": state["optimizer_groups"]}


def _random_state(session: Session) -> dict[str, Tensor]:
    states = {"session": session.generator.get_state(), "torch": torch.get_rng_state()}
    if session.accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(session.accelerator.device)
    return states


def _restore_random(session: Session, states: dict[str, Tensor]) -> None:
    session.generator.set_state(states["session"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and session.accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], session.accelerator.device)
