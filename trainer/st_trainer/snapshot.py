"""The whole state of a session, copied out of the way of training, and put back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from st_shared.spec.digest import spec_sha256
from st_trainer.data.sampler import Cursor
from st_trainer.errors import BadDataError
from st_trainer.families.family import FromScratch
from st_trainer.history import LossHistory
from st_trainer.session import Session
from st_trainer.techniques.technique import TechniqueState
from st_trainer.tensor_tree import put_together, take_apart
from st_trainer.weights import WEIGHTS_NAME, description

STATE_NAME = "state.json"
_OPTIMIZER, _RANDOM = "optimizer.safetensors", "random.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is written from, in host memory."""

    step: int
    spec_sha256: str
    tensors: Mapping[str, Mapping[str, Tensor]]
    """The tensors of each file."""
    metadata: Mapping[str, dict[str, str]]
    """The metadata of files that have some."""
    state: Mapping[str, Any]
    """The rest; JSON can hold it."""


def take_snapshot(session: Session, random: Sequence[Mapping[str, Tensor]]) -> Snapshot:
    """Copy the state of ``session``; it may go on at once. ``random`` is that of each rank.

    Where weights are spread, every rank must ask, and what the first gets is complete.
    """
    denoiser, strategy = session.denoiser.with_module(session.module), session.strategy
    moments: dict[str, Tensor] = {}
    optimizer = strategy.optimizer_state()
    document = {
        "state": take_apart(optimizer["state"], "", moments),
        "groups": take_apart(optimizer["param_groups"], "groups", moments),
    }
    kept = {each.name: each.state() for each in session.techniques}
    made_of_parts = {each.name for each in session.techniques if each.keeps_parts}
    files: dict[str, Mapping[str, Tensor]] = {
        WEIGHTS_NAME: strategy.whole(session.adapter.tensors(session.module), strategy.parts()),
        _OPTIMIZER: moments,
        _RANDOM: {
            "session": session.generator.get_state(),
            **{_of_rank(n, name): t for n, each in enumerate(random) for name, t in each.items()},
        },
    }
    for name, each in kept.items():
        if each.tensors:
            parts = each.tensors if name in made_of_parts else {}
            files[f"{name}.safetensors"] = strategy.whole(each.tensors, parts)
    is_own = isinstance(denoiser.family, FromScratch)
    state = {
        "step": session.step,
        "loss": session.history.recent(session.spec.checkpoint.every),
        "cursor": asdict(session.sampler.cursor),
        "samples_sha256": session.samples.sha256,
        "techniques": {name: dict(each.numbers) for name, each in kept.items()},
        "optimizer": document,
        "losses": session.history.state,
        "torch": torch.__version__,
    }
    return Snapshot(
        session.step,
        spec_sha256(session.spec),
        {name: _copied(each, copy=not strategy.spreads_state) for name, each in files.items()},
        {WEIGHTS_NAME: description(denoiser, session.step)} if is_own else {},
        state,
    )


def put_back(session: Session, folder: Path, state: dict[str, Any]) -> None:
    """Give ``session`` the state in ``folder``, whose ``state.json`` holds ``state``.

    Raises:
        BadDataError: the samples are no longer those that the checkpoint was trained on.
    """
    if state["samples_sha256"] != session.samples.sha256:
        raise BadDataError(
            f"training.datasets: the samples have changed since {folder.name} was written; "
            "restore them, or start anew in another --run-dir"
        )
    strategy = session.strategy
    strategy.load(session.adapter, load_file(folder / WEIGHTS_NAME))
    for technique in session.techniques:
        file = folder / f"{technique.name}.safetensors"
        tensors = load_file(file) if file.exists() else {}
        tensors = strategy.cut_all(tensors) if technique.keeps_parts else tensors
        technique.restore(TechniqueState(tensors, state["techniques"][technique.name]))
    moments = load_file(folder / _OPTIMIZER)
    document = state["optimizer"]
    strategy.load_optimizer(
        {
            "state": put_together(document["state"], moments),
            "param_groups": put_together(document["groups"], moments),
        }
    )
    _restore_random(session, load_file(folder / _RANDOM))
    session.move_sampler(Cursor(**state["cursor"]))
    session.history = LossHistory.restored(state["losses"])
    session.step = state["step"]


def _copied(tensors: Mapping[str, Tensor], *, copy: bool) -> dict[str, Tensor]:
    """``tensors`` in host memory; those that were gathered are copies already."""
    return {name: each.detach().to("cpu", copy=copy) for name, each in tensors.items()}


def random_state(session: Session) -> dict[str, Tensor]:
    """What this rank draws from beside the numbers that all ranks share."""
    states = {"torch": torch.get_rng_state()}
    if session.accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(session.accelerator.device)
    return states


def _restore_random(session: Session, states: dict[str, Tensor]) -> None:
    session.generator.set_state(states["session"])
    rank, device = session.ranks.rank, session.accelerator.device
    if (own := states.get(_of_rank(rank, "torch"))) is not None:  # there may be more ranks now
        torch.set_rng_state(own)
    if device.type == "cuda" and (own := states.get(_of_rank(rank, "cuda"))) is not None:
        torch.cuda.set_rng_state(own, device)


def _of_rank(rank: int, name: str) -> str:
    """Name of a state in the file; without a number where it is the first rank's."""
    return f"{name}.{rank}" if rank else name
