"""FSDP2: weights, gradients and the optimiser's state are spread; Zhao et al. 2023.

Every repeated block is gathered by itself, just before it is needed, and given back after it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.execution.blocks import repeated_blocks
from st_trainer.families.family import Denoiser
from st_trainer.strategies.strategy import Answering, Named, Prepared, Strategy


class FullySharded(Strategy):
    """Torch's ``fully_shard`` through accelerate. A part is some first rows of a parameter."""

    @classmethod
    def arguments(cls, spec: TrainingSpec) -> dict[str, Any]:
        """The precision, and accelerate's plugin."""
        asked, is_bf16 = spec.distributed, spec.precision == "bf16"
        # Inputs stay as they are: times in bfloat16 would be rounded to a few hundred values.
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if is_bf16 else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
        offload = CPUOffloadPolicy(pin_memory=torch.accelerator.is_available())
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            reshard_after_forward=asked.reshard_after_forward,
            cpu_offload=offload if asked.offload_parameters == "cpu" else False,
            auto_wrap_policy="transformer_based_wrap",
            mixed_precision_policy=policy,
            state_dict_type="FULL_STATE_DICT",
            cpu_ram_efficient_loading=False,
        )
        return {"mixed_precision": "bf16" if is_bf16 else "no", "fsdp_plugin": plugin}

    def prepare(self, denoiser: Denoiser, optimizer: torch.optim.Optimizer) -> Prepared:
        """Spread the blocks, each in a unit of its own, and the rest in one more."""
        self.module = denoiser.module.train()
        places = {id(each): name for name, each in trained(self.module).items()}
        held = [each for group in optimizer.param_groups for each in group["params"]]
        self._names = [places[id(each)] for each in held]
        denoiser.to(self.accelerator.device)
        plugin = self.accelerator.state.fsdp_plugin
        blocks = [type(block).__name__ for _, block in repeated_blocks(self.module)]
        plugin.transformer_cls_names_to_wrap = sorted(set(blocks))
        root, self._optimizer = self.accelerator.prepare(Answering(denoiser), optimizer)
        self._root: nn.Module = root
        return Prepared(replace(denoiser, through=root), self._optimizer, root)

    @contextmanager
    def adding_up(self, *, last: bool) -> Iterator[None]:
        """Exchanged with the last; until then each process holds whole gradients."""
        cast("FSDPModule", self._root).set_requires_gradient_sync(last)
        yield

    @torch.no_grad()
    def parts(self) -> Named:
        """The rows that lie here."""
        self.settle()
        found = {name: each.to_local() for name, each in self._sharded().items()}
        return {name: each.detach() for name, each in found.items()}

    def gathered(self, name: str, part: Tensor) -> Tensor:
        """The rows of all."""
        return self._spread(name, part.to(self.accelerator.device)).full_tensor()

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """The rows that lie here."""
        like = self._sharded()[name]
        if whole.shape != like.shape:
            raise ValueError(f"{name} has another shape, {tuple(whole.shape)}")
        cut = distribute_tensor(
            whole.to(self.accelerator.device),
            like.device_mesh,
            like.placements,
            src_data_rank=None,  # every process has read the same file
        )
        return cut.to_local().to(like.to_local().device)

    def frozen(self, name: str) -> Tensor:
        """The rows of all."""
        parameter = cast("DTensor", self.module.get_parameter(name))
        return cast("DTensor", parameter.detach().to(self.accelerator.device)).full_tensor()

    def settle(self) -> None:
        """Give back what an answer without gradients has left gathered: it would grow old."""
        for each in self._root.modules():
            if isinstance(each, FSDPModule):
                each.reshard()

    @property
    def names(self) -> list[str]:
        """As they came to be optimised."""
        return self._names

    def span(self, name: str) -> tuple[int, int]:
        """Some first rows: each process has as many, until there are none left."""
        like = self._sharded()[name]
        rows = -(-like.shape[0] // self.accelerator.num_processes)
        before = min(rows * self.accelerator.process_index, like.shape[0])
        return before * math.prod(like.shape[1:]), like.to_local().numel()

    def optimizer_parts(self) -> dict[str, Any]:
        """The rows of each that lie here."""
        document: dict[str, Any] = self._optimizer.state_dict()
        state = {
            number: {
                key: value.to_local() if isinstance(value, DTensor) else value
                for key, value in held.items()
            }
            for number, held in document["state"].items()
        }
        return {**document, "state": state}

    def load_optimizer(self, document: Mapping[str, Any]) -> None:
        """Put rows into tensors that are spread as the parameters are."""
        wanted = {**document, "state": {**document["state"]}}
        for number, state in document["state"].items():
            name = self._names[int(number)]
            moments = {key: each for key, each in state.items() if _is_part(each)}
            spread = {key: self._spread(name, each) for key, each in moments.items()}
            wanted["state"][number] = {**state, **spread}
        self._optimizer.load_state_dict(wanted)

    def _spread(self, name: str, part: Tensor) -> DTensor:
        like = self._sharded()[name]
        return DTensor.from_local(
            part,
            like.device_mesh,
            like.placements,
            run_check=False,
            shape=like.shape,
            stride=like.stride(),
        )

    def _sharded(self) -> dict[str, DTensor]:
        return cast("dict[str, DTensor]", trained(self.module))


def _is_part(value: Any) -> bool:
    """Whether it belongs to the numbers of a parameter, and is no count of steps."""
    return isinstance(value, Tensor) and value.dim() > 0
