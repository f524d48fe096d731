"""The processes that train one model together, and what they must agree on.

Each has a share of every batch, or of the tokens of one; they speak over NCCL on GPUs and gloo on
CPUs. How the model is shared is the strategy's. Rank 0 alone writes, but for the index of the
datasets, of which each writes the part that it has read.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs, PartialState
from accelerate.utils import DistributedType
from torch import Tensor, distributed

from st_shared.spec.distributed import DistributedSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.share import Share
from st_trainer.strategies.registry import strategy_of
from st_trainer.together import sharing

_MOST_THREADS = 16
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


def threads_here(environment: Mapping[str, str]) -> int:
    """Threads with which this process may read files: its part of the machine's cores."""
    return max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // processes_here(environment)))


def join(asked: DistributedSpec) -> PartialState:
    """Join the processes that a launcher has started, over what the strategy needs.

    Raises:
        BadSpecError: accelerate does not see all of them, and would train replicas that never
            exchange a gradient; or there are others than were asked for.
    """
    if asked.strategy != "ddp":
        _prepare_for_spreading(asked)
    world = world_of(os.environ)
    is_cpu = not torch.accelerator.is_available()
    state = PartialState(cpu=_is_joined(asked) and is_cpu, timeout=_PATIENCE)
    joined = distributed.get_world_size() if distributed.is_initialized() else 1
    if not state.num_processes == joined == world:
        raise BadSpecError(
            f"{world} processes were started, but {joined} have joined and accelerate knows of "
            f"{state.num_processes}: they would not exchange gradients; start them with "
            "`st-train launch` or `torchrun`"
        )
    must_agree(asked, world)
    if is_cpu and asked.strategy != "ddp":
        # Accelerate spreads weights over devices alone, and would start replicas on CPUs.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU  # noqa: SLF001
    return state


def must_agree(asked: DistributedSpec, world: int) -> None:
    """Raise ``BadSpecError`` unless ``world`` processes are what ``asked`` is for."""
    if asked.processes not in {None, world}:
        raise BadSpecError(
            f"training.distributed.processes: {asked.processes} are asked for, but {world} were "
            "started: change resources.slots, resources.nodes or `st-train launch --processes`, "
            "or drop the key"
        )
    if world % asked.context_parallel:
        raise BadSpecError(
            f"training.distributed.context_parallel: {asked.context_parallel} does not divide the "
            f"{world} processes that were started"
        )


def _prepare_for_spreading(asked: DistributedSpec) -> None:
    """What accelerate reads from the environment; one process is a group of one."""
    if asked.strategy == "fsdp2":
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
        os.environ["FSDP_OFFLOAD_PARAMS"] = str(asked.offload_parameters == "cpu").lower()
    else:
        strategy_of(asked)  # DeepSpeed must be told of the device before it is loaded
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    if "WORLD_SIZE" not in os.environ:
        os.environ |= {**alone, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}


def _is_joined(asked: DistributedSpec) -> bool:
    """Whether the processes form a group, be it of one."""
    return world_of(os.environ) > 1 or asked.strategy != "ddp"


def make_accelerator(spec: TrainingSpec) -> Accelerator:
    """Device, precision and strategy of the run; joins the processes if they have not.

    Raises:
        BadSpecError: see ``join``; or the strategy cannot be had here.
    """
    asked = spec.distributed
    join(asked)
    is_cpu = asked.strategy == "ddp" and _is_joined(asked) and not torch.accelerator.is_available()
    accelerator = Accelerator(
        cpu=is_cpu,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        **strategy_of(asked).arguments(spec),
    )
    if accelerator.num_processes != world_of(os.environ):
        raise BadSpecError(
            f"accelerate knows of {accelerator.num_processes} processes of "
            f"{world_of(os.environ)}: they would not exchange gradients"
        )
    return accelerator


class Ranks:
    """This process among those that train together.

    ``together`` of them, one after the other, take the same samples and share their tokens.
    """

    def __init__(self, state: Accelerator | PartialState, together: int = 1) -> None:
        self.rank: int = state.process_index
        self.count: int = state.num_processes
        self.together = together
        self.share = Share(self.rank // together, self.count // together)
        self._device: torch.device = state.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

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

    def sharing(self, folder: Path) -> tuple[int, int]:
        """This rank's number among those that see the same ``folder``, and their count."""
        return (0, 1) if self.count == 1 else sharing(folder, self.gather)

    def wait(self) -> None:
        """Return once every rank has come here."""
        self.gather(None)
