"""Gives a session the state that a checkpoint holds, whoever wrote it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from st_trainer.data.sampler import Cursor
from st_trainer.errors import BadDataError
from st_trainer.history import LossHistory
from st_trainer.session import Session
from st_trainer.shards import Shards
from st_trainer.snapshot import BUFFERS, MOMENTS, OPTIMIZER, RANDOM, WEIGHTS, is_part, of_rank
from st_trainer.strategies.strategy import Named, number_of
from st_trainer.techniques.technique import Technique, TechniqueState
from st_trainer.tensor_tree import put_together
from st_trainer.weights import WEIGHTS_NAME


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
    kept = _Sharded(session, folder) if state.get("sharded") else _Whole(session, folder)
    kept.put_weights()
    for technique in session.techniques:
        tensors = kept.of_technique(technique)
        technique.restore(TechniqueState(tensors, state["techniques"][technique.name]))
    moments, document = kept.moments(), state["optimizer"]
    session.strategy.load_optimizer(
        {
            "state": put_together(document["state"], moments),
            "param_groups": put_together(document["groups"], moments),
        }
    )
    _restore_random(session, load_file(folder / RANDOM))
    session.move_sampler(Cursor(**state["cursor"]))
    session.history = LossHistory.restored(state["losses"])
    session.step = state["step"]


class _Whole:
    """A checkpoint whose tensors are whole; each process takes its part of them."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.strategy, self.folder = session, session.strategy, folder

    def put_weights(self) -> None:
        """Those that are trained, and buffers."""
        self.strategy.load(self.session.adapter, load_file(self.folder / WEIGHTS_NAME))

    def of_technique(self, technique: Technique) -> Mapping[str, Tensor]:
        """Its tensors, or the parts of them that lie here."""
        file = self.folder / f"{technique.name}.safetensors"
        tensors = load_file(file) if file.exists() else {}
        return self.strategy.cut_all(tensors) if technique.keeps_parts else tensors

    def moments(self) -> Mapping[str, Tensor]:
        """The optimiser's, by number and key."""
        every = load_file(self.folder / OPTIMIZER)
        own = {key: each for key, each in every.items() if is_part(key, each)}
        return every | self.strategy.cut_moments(own)


class _Sharded(_Whole):
    """A checkpoint that several processes wrote; of it each reads its part alone."""

    def __init__(self, session: Session, folder: Path) -> None:
        super().__init__(session, folder)
        self._shards, self._parts = Shards(folder), self.strategy.parts()

    def put_weights(self) -> None:
        """Parts, and buffers."""
        buffers = load_file(self.folder / BUFFERS)
        self.strategy.load_parts(self.session.adapter, self._read(WEIGHTS), buffers)

    def of_technique(self, technique: Technique) -> Mapping[str, Tensor]:
        """Its tensors, or the parts of them that lie here."""
        if not technique.keeps_parts:
            return super().of_technique(technique)
        return self._read(technique.name)

    def moments(self) -> Mapping[str, Tensor]:
        """The optimiser's, by number and key."""
        found, names = load_file(self.folder / OPTIMIZER), self.strategy.names
        for key in self._shards.below(MOMENTS):
            found[key] = self._piece(f"{MOMENTS}.{key}", names[number_of(key)])
        return found

    def _read(self, kind: str) -> Named:
        """The part of each tensor of ``kind``, by the name of its parameter."""
        return {name: self._piece(f"{kind}.{name}", name) for name in self._shards.below(kind)}

    def _piece(self, key: str, name: str) -> Tensor:
        whole = self.strategy.count(self.session.module.get_parameter(name))
        if self._shards.length(key) != whole:
            raise ValueError(f"{name} has another shape, of {self._shards.length(key)} numbers")
        numbers = self._shards.read(key, *self.strategy.span(name))
        return self.strategy.filled(name, numbers, self._parts[name])


def _restore_random(session: Session, states: dict[str, Tensor]) -> None:
    session.generator.set_state(states["session"])
    rank, device = session.ranks.rank, session.accelerator.device
    if (own := states.get(of_rank(rank, "torch"))) is not None:  # there may be more ranks now
        torch.set_rng_state(own)
    if device.type == "cuda" and (own := states.get(of_rank(rank, "cuda"))) is not None:
        torch.cuda.set_rng_state(own, device)
