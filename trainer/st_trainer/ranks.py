"""The processes that train one model together, and what they must agree on.

Each has the whole model and a share of every batch; gradients are averaged while they are computed
(``DistributedDataParallel``), over NCCL on GPUs and gloo on CPUs. Rank 0 alone writes,
but for the index of the datasets, of which each writes the part that it has read.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Condition, Denoiser
from st_trainer.share import Share

Answer = Callable[[Tensor, Tensor, Condition], Tensor]
"""``Denoiser.predict``, or what synchronises its gradients."""

_PATIENCE = timedelta(hours=4)
"""How long ranks wait for one another, such as while rank 0 alone draws samples and validates."""


def rank_of(environment: Mapping[str, str]) -> int:
    """Rank that a launcher has given to this process; 0 without a launcher."""
    return int(environment.get("RANK", "0"))


def world_of(environment: Mapping[str, str]) -> int:
    """Processes that a launcher has started together; 1 without a launcher."""
    return int(environment.get("WORLD_SIZE", "1"))


def processes_here(environment: Mapping[str, str]) -> int:
    """Processes that a launcher has started on this machine; 1 without a launcher."""
    return int(environment.get("LOCAL_WORLD_SIZE", "1"))


def make_accelerator(spec: TrainingSpec) -> Accelerator:
    """Device and precision of the run; joins the processes that a launcher has started.

    Raises:
        BadSpecError: accelerate does not see all of them, and would train replicas that never
            exchange a gradient.
    """
    world = world_of(os.environ)
    accelerator = Accelerator(
        mixed_precision="no" if spec.precision == "fp32" else spec.precision,
        cpu=world > 1 and not torch.accelerator.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    joined = distributed.get_world_size() if distributed.is_initialized() else 1
    if not accelerator.num_processes == joined == world:
        raise BadSpecError(
            f"{world} processes were started, but {joined} have joined and accelerate knows of "
            f"{accelerator.num_processes}: they would not exchange gradients; start them with "
            "`st-train launch` or `torchrun`"
        )
    return accelerator


class Ranks:
    """This process among those that train together."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.share = Share(accelerator.process_index, accelerator.num_processes)
        self._device = accelerator.device

    @property
    def count(self) -> int:
        """Processes in all."""
        return self.share.parts

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.share.rank == 0

    def synchronised(self, denoiser: Denoiser) -> Answer:
        """``denoiser.predict``; gradients of what it answers are means over all ranks.

        Parameters and buffers of rank 0 are given to the others now.
        """
        if self.count == 1:
            return denoiser.predict
        wrapped = DistributedDataParallel(
            _Answering(denoiser),
            device_ids=None if self._device.type == "cpu" else [self._device],
            find_unused_parameters=True,  # some models keep weights that no answer depends on
        )
        wrapped.broadcast_buffers = False  # no step changes them, and each would send all of them
        return cast("Answer", wrapped)

    def adding_up(self, answer: Answer, *, last: bool) -> AbstractContextManager[None]:
        """Within it, gradients of ``answer`` are added up; those of the ``last`` are averaged."""
        if last or not isinstance(answer, DistributedDataParallel):
            return nullcontext()
        waits: AbstractContextManager[None] = answer.no_sync()
        return waits

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over all ranks, the same to the last bit on each."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.count

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        if self.count == 1:
            return flag
        count = torch.tensor(int(flag), device=self._device)
        distributed.all_reduce(count)
        return bool(count.item())

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on each of them."""
        found: list[Any] = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Return once every rank has come here."""
        self.gather(None)


class _Answering(nn.Module):
    """A denoiser as one module, whichever way its family calls the model."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.module = denoiser.module
        self._denoiser = denoiser

    def forward(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The answer."""
        return self._denoiser.predict(noisy, times, condition)
