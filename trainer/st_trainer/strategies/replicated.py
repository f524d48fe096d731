"""Each process holds the whole model; gradients are averaged while they are computed."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import Adapter, copy_into, trained
from st_trainer.families.family import Answer, Denoiser
from st_trainer.strategies.strategy import Answering, Named, Prepared, Strategy


class Replicated(Strategy):
    """Torch's ``DistributedDataParallel``, or one process alone: the part is the whole."""

    spreads_state: ClassVar = False

    @classmethod
    def arguments(cls, spec: TrainingSpec) -> dict[str, Any]:
        """The precision alone."""
        return {"mixed_precision": "no" if spec.precision == "fp32" else spec.precision}

    def prepare(self, denoiser: Denoiser, optimizer: torch.optim.Optimizer) -> Prepared:
        """Prepared as if it were evaluated: what wraps it for several processes is ours."""
        accelerator = self.accelerator
        self.module = accelerator.prepare_model(
            denoiser.module.train(),
            device_placement=not self.spec.memory.offload.level,
            evaluation_mode=True,
        )
        self._optimizer = accelerator.prepare_optimizer(optimizer)
        denoiser.to(accelerator.device)
        prepared = replace(denoiser, module=self.module)
        self._answer = synchronised(prepared, accelerator.num_processes, accelerator.device)
        return Prepared(prepared, self._optimizer, self._answer)

    @cached_property
    def _trained(self) -> dict[str, nn.Parameter]:
        """Found once: it takes a walk through all layers, which no step repeats."""
        return trained(self.module)

    def adding_up(self, *, last: bool) -> AbstractContextManager[None]:
        """Averaged with the last."""
        if last or not isinstance(self._answer, DistributedDataParallel):
            return nullcontext()
        waits: AbstractContextManager[None] = self._answer.no_sync()
        return waits

    def clip(self, most: float) -> Tensor:
        """Clip them here: each process has all of them, and they are alike."""
        self.accelerator.unscale_gradients()
        return clip_grad_norm_(self._trained.values(), most)

    def parts(self) -> Named:
        """The parameters themselves."""
        return dict(self._trained)

    def span(self, name: str) -> tuple[int, int]:
        """All of it."""
        return 0, self.module.get_parameter(name).numel()

    def gathered(self, name: str, part: Tensor) -> Tensor:
        """``part`` as it is."""
        del name
        return part

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """``whole`` as it is; whoever copies it compares the shapes."""
        del name
        return whole

    def whole(self, tensors: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> Named:
        """``tensors`` as they are; whoever keeps them copies them."""
        del parts
        return dict(tensors)

    @contextmanager
    def showing(self, parts: Mapping[str, Tensor]) -> Iterator[None]:
        """``parts`` are copied into the parameters, and what was there back."""
        present = self._trained
        before = {name: each.detach().clone() for name, each in present.items()}
        copy_into(present, parts)
        try:
            yield
        finally:
            copy_into(present, before)

    def load_parts(
        self, adapter: Adapter, parts: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> None:
        """The adapter knows how."""
        adapter.load(self.module, {**parts, **buffers})

    @property
    def names(self) -> list[str]:
        """Of the parameters themselves, not of copies that an optimiser works on."""
        places = {id(each): name for name, each in self._trained.items()}
        groups = self._optimizer.param_groups
        return [places[id(each)] for group in groups for each in group["params"]]

    def optimizer_parts(self) -> dict[str, Any]:
        """What the optimiser says."""
        return cast("dict[str, Any]", self._optimizer.state_dict())

    def optimizer_state(self) -> dict[str, Any]:
        """The same: it is whole."""
        return self.optimizer_parts()

    def cut_moments(self, moments: Mapping[str, Tensor]) -> Named:
        """They are as the optimiser wants them."""
        return dict(moments)

    def load_optimizer(self, document: Mapping[str, Any]) -> None:
        """Hand it to the optimiser."""
        self._optimizer.load_state_dict(dict(document))

    def frozen(self, name: str) -> Tensor:
        """As it is."""
        return self.module.get_parameter(name)

    @contextmanager
    def assembled(self, adapter: Adapter) -> Iterator[None]:
        """It is whole already."""
        del adapter
        yield


def synchronised(denoiser: Denoiser, processes: int, device: torch.device) -> Answer:
    """``denoiser.predict``; gradients of what it answers are means over all processes.

    Parameters and buffers of the first are given to the others now.
    """
    if processes == 1:
        return denoiser.predict
    wrapped = DistributedDataParallel(
        Answering(denoiser),
        device_ids=None if device.type == "cpu" else [device],
        find_unused_parameters=True,  # some models keep weights that no answer depends on
    )
    wrapped.broadcast_buffers = False  # no step changes them, and each would send all of them
    return cast("Answer", wrapped)
