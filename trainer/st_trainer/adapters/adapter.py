"""What every adapter answers. After ``attach``, what is trained is what requires a gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from st_shared.spec.adapter import AdapterSpec
from st_trainer.caching.encodings import Encodings
from st_trainer.data.samples import Samples
from st_trainer.families.family import Condition, Denoiser


class Adapter(ABC):
    """One way to train a model, attached to its module in place."""

    listener: Callable[[Tensor], None] | None = None
    """What wants to know how far towards noise the samples are; see ``Denoiser``."""

    hooks_into_layers: bool = False
    """Whether it holds on to the layers that it adapts, so that none may be replaced after it."""

    def __init__(self, spec: AdapterSpec) -> None:
        self.spec = spec

    @abstractmethod
    def attach(self, denoiser: Denoiser) -> None:
        """Make what is to be trained, in fp32, and freeze the rest.

        Raises:
            BadSpecError: nothing in the module fits the specification.
        """

    def told(self, samples: Samples, indexes: Sequence[int], encodings: Encodings) -> Condition:
        """What the model is told of the samples at ``indexes`` for this adapter's sake."""
        del samples, indexes, encodings
        return {}

    @abstractmethod
    def off(self, module: nn.Module) -> AbstractContextManager[None]:
        """While it lasts, ``module`` answers as it did before training.

        Raises:
            BadSpecError: the weights before training are not kept.
        """

    def strengthen(self, module: nn.Module, strength: float) -> None:
        """From now on what is trained counts ``strength`` times; 1: as it is.

        Raises:
            NotImplementedError: there is nothing beside the weights that could.
        """
        del module, strength
        raise NotImplementedError(type(self).__name__)

    @contextmanager
    def at(self, module: nn.Module, strength: float) -> Iterator[None]:
        """While it lasts, what is trained counts ``strength`` times; 0: as ``off``."""
        if strength == 0:
            with self.off(module):
                yield
            return
        if strength == 1:
            yield
            return
        self.strengthen(module, strength)
        try:
            yield
        finally:
            self.strengthen(module, 1.0)

    @abstractmethod
    def write(self, folder: Path, denoiser: Denoiser, step: int) -> Path:
        """Write the result below ``folder``; gives the path of its weights."""

    def written(self, module: nn.Module) -> Iterable[str]:
        """Names of the frozen parameters that ``write`` needs beside the trained ones."""
        del module
        return ()

    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint keeps of ``module``."""
        return dict(trained(module))

    def load(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put the tensors of a checkpoint back.

        Raises:
            ValueError: they are those of another adapter.
        """
        copy_into(trained(module), tensors)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of ``module`` that are trained, by name."""
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


def as_floats(module: nn.Module) -> None:
    """Keep what is trained in fp32, whatever the type of the rest."""
    for parameter in trained(module).values():
        parameter.data = parameter.data.float()


@torch.no_grad()
def copy_into(present: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Give the tensors of ``present`` the values of ``wanted``, name by name.

    Raises:
        ValueError: names or shapes differ.
    """
    check_names(present, wanted)
    for name, tensor in present.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(f"{name} has another shape, {tuple(wanted[name].shape)}")
        tensor.copy_(wanted[name])


def check_names(present: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` unless both hold tensors of the same names."""
    if present.keys() != wanted.keys():
        differ = sorted(present.keys() ^ wanted.keys())
        raise ValueError(f"{len(differ)} tensors have no counterpart, such as {differ[0]}")
