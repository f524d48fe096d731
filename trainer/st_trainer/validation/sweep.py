"""Adapter sweeps: the same prompts with the base alone, each adapter, and all of them together."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from st_shared.spec.validation import SweepAdapter, SweepSpec
from st_trainer.adapters.adapter import Adapter
from st_trainer.adapters.lora_file import LoraFile, read_lora
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.families.pretrained import Pretrained

TRAINED = "trained"
"""What the adapter of this run is called."""


@dataclass(frozen=True)
class SweepRun:
    """One row of a sweep."""

    label: str
    trained: float
    """How much the adapter of this run counts."""
    others: Mapping[str, float] = field(default_factory=dict)
    """How much each further adapter counts, by its name."""


def sweep_runs(spec: SweepSpec) -> Iterator[SweepRun]:
    """The rows that ``spec`` asks for; the base alone is one, whatever the strengths."""
    if "none" in spec.modes:
        yield SweepRun("base alone", 0.0)
    for strength in spec.strengths:
        scaled = {each.name: each.strength * strength for each in spec.adapters}
        if "each" in spec.modes:
            yield SweepRun(f"{TRAINED} x {strength:g}", strength)
            for name, own in scaled.items():
                yield SweepRun(f"{name} x {own:g}", 0.0, {name: own})
        if "combined" in spec.modes:
            yield SweepRun(f"all x {strength:g}", strength, scaled)


class SweepAdapters:
    """The further LoRA files of a sweep, which are added to the frozen weights for a while."""

    def __init__(self, adapters: Sequence[SweepAdapter], denoiser: Denoiser) -> None:
        """Read them.

        Raises:
            BadSpecError: one cannot be read, does not fit, or holds what cannot be added.
        """
        self._files = {each.name: _read(each, denoiser) for each in adapters}

    @contextmanager
    def applied(self, run: SweepRun, adapter: Adapter, module: nn.Module) -> Iterator[None]:
        """While it lasts, ``module`` is as ``run`` says; its weights are put back to the bit."""
        with ExitStack() as stack:
            stack.enter_context(adapter.at(module, run.trained))
            wanted = [(self._files[name], own) for name, own in run.others.items()]
            stack.enter_context(added(module, wanted))
            yield


@contextmanager
def added(module: nn.Module, files: Sequence[tuple[LoraFile, float]]) -> Iterator[None]:
    """While it lasts, the matrices of ``files`` are added to the weights, each times its number."""
    kept: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for file, strength in files:
                for name, (first, second) in file.folded.pairs.items():
                    weight = _weight(module, name)
                    if name not in kept:
                        kept[name] = weight.detach().clone()
                    weight += (strength * _product(first, second, weight)).to(weight)
        yield
    finally:
        with torch.no_grad():
            for name, before in kept.items():
                _weight(module, name).copy_(before)


def _read(adapter: SweepAdapter, denoiser: Denoiser) -> LoraFile:
    where = f"training.validation.sweep.adapters: {adapter.name}"
    family: Any = denoiser.family
    assert isinstance(family, Pretrained)  # noqa: S101 -- kinds other than full are of such alone
    try:
        file = read_lora(Path(adapter.path), denoiser.module, family)
    except BadSpecError as error:
        said = str(error).removeprefix("training.adapter.continue_from: ")
        raise BadSpecError(f"{where}: {said}") from None
    if file.has_dora:
        raise BadSpecError(f"{where}: it has magnitudes (DoRA), which cannot be added to weights")
    for name, (first, second) in file.pairs.items():
        weight = _weight(denoiser.module, name)
        if not weight.is_floating_point():
            raise BadSpecError(f"{where}: {name} is quantised, so nothing can be added to it")
        if len(second) != len(weight) or first.flatten(1).shape[1] != weight.flatten(1).shape[1]:
            raise BadSpecError(f"{where}: {name} has another shape, {tuple(weight.shape)}")
    return file


def _product(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """``B A`` in the shape of ``weight``; those of convolutions have a 1 x 1 ``B``."""
    first, second = first.to(weight.device).float(), second.to(weight.device).float()
    return (second.flatten(1) @ first.flatten(1)).view_as(weight)


def _weight(module: nn.Module, name: str) -> Tensor:
    """The frozen weight of a layer, whether or not an adapter stands around it."""
    layer: Any = module.get_submodule(name)
    weight: Tensor = getattr(layer, "base_layer", layer).weight
    return weight
