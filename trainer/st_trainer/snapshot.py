"""The whole state of a session, copied out of the way of training."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from st_shared.spec.digest import spec_sha256
from st_trainer.families.family import FromScratch
from st_trainer.session import Session
from st_trainer.shards import Piece, described, shard_name
from st_trainer.strategies.strategy import number_of
from st_trainer.techniques.technique import TechniqueState
from st_trainer.tensor_tree import take_apart
from st_trainer.weights import WEIGHTS_NAME, description

STATE_NAME = "state.json"
OPTIMIZER, RANDOM = "optimizer.safetensors", "random.safetensors"
BUFFERS = "buffers.safetensors"
"""What is not trained, where weights lie in the files of all processes."""
WEIGHTS, MOMENTS = "weights", "optimizer"
"""How names in those files begin."""
_GROUPS = "groups"

Files = dict[str, Mapping[str, Tensor]]
"""Tensors by name, by the name of their file."""


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


def take_snapshot(
    session: Session, random: Sequence[Mapping[str, Tensor]], *, sharded: bool = False
) -> Snapshot:
    """Copy the state of ``session``; it may go on at once. ``random`` is that of each rank.

    Where weights are spread, every rank must ask, and what the first gets is complete; or, if it is
    ``sharded``, each gets what lies in it.
    """
    strategy = session.strategy
    moments: dict[str, Tensor] = {}
    optimizer = strategy.optimizer_parts() if sharded else strategy.optimizer_state()
    document = {
        "state": take_apart(optimizer["state"], "", moments),
        "groups": take_apart(optimizer["param_groups"], _GROUPS, moments),
    }
    kept = {each.name: each.state() for each in session.techniques}
    kinds = {each.name for each in session.techniques if each.keeps_parts}
    files = (_own_files if sharded else _whole_files)(session, moments, kept, kinds)
    files[RANDOM] = {
        "session": session.generator.get_state(),
        **{of_rank(n, name): t for n, each in enumerate(random) for name, t in each.items()},
    }
    state = {
        "step": session.step,
        "loss": session.history.recent(session.spec.checkpoint.every),
        "cursor": asdict(session.sampler.cursor),
        "samples_sha256": session.samples.sha256,
        "techniques": {name: dict(each.numbers) for name, each in kept.items()},
        "optimizer": document,
        "losses": session.history.state,
        "torch": torch.__version__,
        "sharded": sharded,
    }
    metadata, own = _metadata(session, sharded=sharded), {}
    if sharded:
        pieces = _pieces(session, moments, kept, kinds)
        name = shard_name(session.ranks.rank, session.ranks.count)
        own[name] = {key: each.numbers for key, each in pieces.items()}
        metadata[name] = described(pieces)
    if not session.ranks.is_first:  # the rest is the first one's to write
        files, state = {}, {}
    copy = sharded or not strategy.spreads_state
    return Snapshot(
        session.step,
        spec_sha256(session.spec),
        {name: _copied(each, copy=copy) for name, each in (files | own).items()},
        metadata,
        state,
    )


def _metadata(session: Session, *, sharded: bool) -> dict[str, dict[str, str]]:
    """What the file of weights tells of itself, so that it loads without the rest."""
    denoiser = session.denoiser.with_module(session.module)
    if sharded or not isinstance(denoiser.family, FromScratch):
        return {}
    return {WEIGHTS_NAME: description(denoiser, session.step)}


def _whole_files(
    session: Session,
    moments: Mapping[str, Tensor],
    kept: Mapping[str, TechniqueState],
    kinds: Collection[str],
) -> Files:
    """Everything in the form that it has in one process; ``kinds`` of techniques keep parts."""
    strategy = session.strategy
    files: Files = {
        WEIGHTS_NAME: strategy.whole(session.adapter.tensors(session.module), strategy.parts()),
        OPTIMIZER: moments,
    }
    for name, each in kept.items():
        if each.tensors:
            parts = each.tensors if name in kinds else {}
            files[f"{name}.safetensors"] = strategy.whole(each.tensors, parts)
    return files


def _own_files(
    session: Session,
    moments: Mapping[str, Tensor],
    kept: Mapping[str, TechniqueState],
    kinds: Collection[str],
) -> Files:
    """What every process holds whole, so that the first alone writes it."""
    present, parts = session.adapter.tensors(session.module), session.strategy.parts()
    files: Files = {
        BUFFERS: {name: each for name, each in present.items() if name not in parts},
        OPTIMIZER: {key: each for key, each in moments.items() if not is_part(key, each)},
    }
    for name, each in kept.items():
        if each.tensors and name not in kinds:
            files[f"{name}.safetensors"] = each.tensors
    return files


def _pieces(
    session: Session,
    moments: Mapping[str, Tensor],
    kept: Mapping[str, TechniqueState],
    kinds: Collection[str],
) -> dict[str, Piece]:
    """What lies in this process of what is spread."""
    strategy = session.strategy
    names, found = strategy.names, dict[str, Piece]()

    def add(kind: str, key: str, name: str, part: Tensor) -> None:
        start, length = strategy.span(name)
        if length:
            found[f"{kind}.{key}"] = Piece(start, part.flatten()[:length])

    for name, part in strategy.parts().items():
        add(WEIGHTS, name, name, part)
    for key, part in moments.items():
        if is_part(key, part):
            add(MOMENTS, key, names[number_of(key)], part)
    for kind in kinds:
        for name, part in kept[kind].tensors.items():
            add(kind, name, name, part)
    return found


def is_part(key: str, moment: Tensor) -> bool:
    """Whether a moment belongs to the numbers of a parameter, not to it as one, such as a count."""
    return moment.dim() > 0 and not key.startswith(_GROUPS)


def _copied(tensors: Mapping[str, Tensor], *, copy: bool) -> dict[str, Tensor]:
    """``tensors`` in host memory; those that were gathered are copies already."""
    return {name: each.detach().to("cpu", copy=copy) for name, each in tensors.items()}


def random_state(session: Session) -> dict[str, Tensor]:
    """What this rank draws from beside the numbers that all ranks share."""
    states = {"torch": torch.get_rng_state()}
    if session.accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(session.accelerator.device)
    return states


def of_rank(rank: int, name: str) -> str:
    """Name of a state in the file; without a number where it is the first rank's."""
    return f"{name}.{rank}" if rank else name
