"""What every strategy answers: which part of each weight lies here, and how to see it whole.

A *part* is what this process holds of one trained parameter, as a plain tensor that shares the
memory of the weight: changing it changes what is trained, once ``settle`` was called. What is kept
beside the weights, such as an average, is made of parts as well. Whole tensors have the shape that
they have without a strategy, so checkpoints and results do not tell how many processes made them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import Adapter, check_names
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Answer, Condition, Denoiser

Named = dict[str, Tensor]
"""Tensors by the name of the parameter that they belong to."""


@dataclass(frozen=True)
class Prepared:
    """A model that can be trained by all processes together."""

    denoiser: Denoiser
    optimizer: Any
    answer: Answer
    """What a step asks for the model's answer, so that gradients are those of all ranks."""


class Strategy(ABC):
    """One way to share a model."""

    spreads_state: ClassVar[bool] = True
    """Whether what a checkpoint keeps is put together from several processes, and so is a copy."""

    def __init__(self, spec: TrainingSpec, accelerator: Accelerator) -> None:
        self.spec, self.accelerator = spec, accelerator
        self.module: nn.Module

    @property
    def is_spread(self) -> bool:
        """Whether a process alone can neither answer nor tell its state: all must take part."""
        return self.spreads_state or self.spec.distributed.context_parallel > 1

    @classmethod
    @abstractmethod
    def arguments(cls, spec: TrainingSpec) -> dict[str, Any]:
        """What the accelerator is made with."""

    @abstractmethod
    def prepare(self, denoiser: Denoiser, optimizer: torch.optim.Optimizer) -> Prepared:
        """Give each process its part of the model; ``optimizer`` has not been used yet."""

    @abstractmethod
    def adding_up(self, *, last: bool) -> AbstractContextManager[None]:
        """Within it, gradients are added to those before; the ``last`` of a step are exchanged."""

    def clip(self, most: float) -> Tensor:
        """Clip the gradients of all ranks to a global norm of ``most``; gives it as it was."""
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), most)
        return cast("Tensor", norm)

    @abstractmethod
    def parts(self) -> Named:
        """This process's part of each trained parameter."""

    @abstractmethod
    def span(self, name: str) -> tuple[int, int]:
        """Where in a flattened trained parameter this process's part begins, and its length.

        What fills up a part, so that all have one length, is not counted.
        """

    def filled(self, name: str, numbers: Tensor, like: Tensor) -> Tensor:
        """The part, as ``like`` in form and place, that holds ``numbers``, those of its ``span``.

        Raises:
            ValueError: there are others.
        """
        if len(numbers) != self.span(name)[1]:
            raise ValueError(f"{name} has another shape: {len(numbers)} numbers lie here")
        part = torch.zeros(like.numel(), dtype=numbers.dtype)
        part[: len(numbers)] = numbers
        return part.view(like.shape).to(like.device)

    @abstractmethod
    def gathered(self, name: str, part: Tensor) -> Tensor:
        """The whole of which ``part`` is this process's; every process must ask."""

    @abstractmethod
    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's part of ``whole``.

        Raises:
            ValueError: it has not the shape of the parameter.
        """

    def settle(self) -> None:  # noqa: B027 -- nothing is to be done where weights are here
        """Parts were changed, or the model was asked without training: use them as they are now."""

    @contextmanager
    def showing(self, parts: Mapping[str, Tensor]) -> Iterator[None]:
        """While it lasts, ``parts`` stand in for the weights, which come back to the last bit."""
        before = {name: each.detach().clone() for name, each in self.parts().items()}
        self.put(parts)
        try:
            yield
        finally:
            self.settle()
            self.put(before)

    @torch.no_grad()
    def put(self, parts: Mapping[str, Tensor]) -> None:
        """Give the weights the values of ``parts``."""
        for name, present in self.parts().items():
            present.copy_(parts[name])
        self.settle()

    @torch.no_grad()
    def whole(self, tensors: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> Named:
        """``tensors`` on the CPU of the first process, those gathered of which there are ``parts``.

        Nothing on the others, which must ask as well.
        """
        first, found = self.accelerator.process_index == 0, {}
        for name, tensor in tensors.items():
            seen = self.gathered(name, parts[name]) if name in parts else tensor
            if first:
                found[name] = seen.detach().to("cpu", copy=True)
        return found

    def cut_all(self, tensors: Mapping[str, Tensor]) -> Named:
        """This process's part of each of ``tensors``."""
        return {name: self.cut(name, each) for name, each in tensors.items()}

    def load(self, adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
        """Give the weights of ``adapter`` the values of a checkpoint, whole on every process.

        Raises:
            ValueError: they are those of another adapter.
        """
        check_names(adapter.tensors(self.module), tensors)
        whole = {name: tensors[name] for name in self.parts()}
        others = {name: each for name, each in tensors.items() if name not in whole}
        self.load_parts(adapter, self.cut_all(whole), others)

    @torch.no_grad()
    def load_parts(
        self, adapter: Adapter, parts: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> None:
        """The same, of this process's ``parts``, and what every process has of ``buffers``.

        Raises:
            ValueError: they are those of another adapter.
        """
        present = adapter.tensors(self.module)
        check_names(present, {**parts, **buffers})
        self.put(parts)
        for name, each in buffers.items():
            present[name].copy_(each)

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The trained parameters in the order in which the optimiser counts them."""

    @abstractmethod
    def optimizer_parts(self) -> dict[str, Any]:
        """What ``torch.optim.Optimizer.state_dict`` says; tensors are this process's parts."""

    def optimizer_state(self) -> dict[str, Any]:
        """The same with whole tensors, on the first process alone; all must ask."""
        document, names = self.optimizer_parts(), self.names
        state = {
            number: {key: self._whole(names[number], each) for key, each in held.items()}
            for number, held in document["state"].items()
        }
        return {**document, "state": state}

    def _whole(self, name: str, value: Any) -> Any:
        """A moment gathered; on other processes than the first it is dropped."""
        if not isinstance(value, Tensor):
            return value
        if value.dim() == 0:
            return value.clone()
        whole = self.gathered(name, value)
        return whole.to("cpu", copy=True) if self.accelerator.process_index == 0 else None

    def cut_moments(self, moments: Mapping[str, Tensor]) -> Named:
        """This process's part of each of ``moments``, named ``NUMBER.KEY`` by its parameter."""
        return {
            key: self.cut(self.names[number_of(key)], each) if each.dim() else each
            for key, each in moments.items()
        }

    @abstractmethod
    def load_optimizer(self, document: Mapping[str, Any]) -> None:
        """Put what ``optimizer_parts`` gave back."""

    @abstractmethod
    def frozen(self, name: str) -> Tensor:
        """A parameter that is not trained, whole; every process must ask."""

    @contextmanager
    def assembled(self, adapter: Adapter) -> Iterator[None]:
        """While it lasts, the first process's module holds whole what ``adapter`` writes.

        Every process must ask; on the others it is not to be used.
        """
        parts = self.parts()
        whole = self.whole(parts, parts)
        for name in adapter.written(self.module):
            whole |= self.whole({name: self.frozen(name)}, {})
        replaced = {name: self.module.get_parameter(name) for name in whole}
        for name, tensor in whole.items():
            _exchange(self.module, name, nn.Parameter(tensor, replaced[name].requires_grad))
        try:
            yield
        finally:
            for name, parameter in replaced.items():
                _exchange(self.module, name, parameter)

    def count(self, parameter: nn.Parameter) -> int:
        """Numbers in a whole parameter."""
        return parameter.numel()


def number_of(moment: str) -> int:
    """The number of the parameter that the moment ``NUMBER.KEY`` belongs to."""
    return int(moment.partition(".")[0])


class Answering(nn.Module):
    """A denoiser as one module, whichever way its family calls the model."""

    def __init__(self, denoiser: Denoiser, *, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.module = denoiser.module
        self._denoiser, self._autocast = denoiser, autocast
        _ = denoiser.dtype  # found while every weight is here

    def forward(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The answer."""
        with torch.autocast(noisy.device.type, self._autocast, enabled=self._autocast is not None):
            try:
                return self._denoiser.predict(noisy, times, condition)
            except AssertionError as error:
                if "divisible by mesh size" not in str(error):
                    raise
                raise BadSpecError(
                    "training.distributed.context_parallel does not divide the tokens of a sample "
                    "or of its caption: change their sizes, such as buckets.step, or drop it"
                ) from error


def _exchange(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    place, _, last = name.rpartition(".")
    module.get_submodule(place)._parameters[last] = parameter  # noqa: SLF001 -- as it is, unwrapped
