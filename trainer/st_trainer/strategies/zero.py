"""DeepSpeed's ZeRO: the optimiser's state, gradients and weights are spread; Rajbhandari 2020.

Trained weights stay in fp32, and bfloat16 is the arithmetic of the forward pass, as elsewhere.
DeepSpeed lays all parameters of a group into one flat tensor and cuts that; what is here reads and
writes the pieces by the name of the parameter.
"""

import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from accelerate import DeepSpeedPlugin
from torch import Tensor, distributed, nn
from torch.nn import functional

from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.strategies.strategy import Answering, Named, Prepared, Strategy


class Zero(Strategy):
    """An engine of DeepSpeed through accelerate."""

    @classmethod
    def arguments(cls, spec: TrainingSpec) -> dict[str, Any]:
        """Accelerate's plugin.

        Raises:
            BadSpecError: DeepSpeed is not installed.
        """
        load_deepspeed()
        return {
            "mixed_precision": "no",  # else DeepSpeed would keep all weights in bfloat16
            "deepspeed_plugin": DeepSpeedPlugin(hf_ds_config=configuration(spec)),
        }

    def prepare(self, denoiser: Denoiser, optimizer: torch.optim.Optimizer) -> Prepared:
        """Hand both to an engine."""
        self.module = denoiser.module.train()
        self._parameters = trained(self.module)
        names = {id(each): name for name, each in self._parameters.items()}
        self._groups = [[names[id(p)] for p in each["params"]] for each in optimizer.param_groups]
        denoiser.to(self.accelerator.device)
        autocast = torch.bfloat16 if self.spec.precision == "bf16" else None
        answering = Answering(denoiser, autocast=autocast)
        engine, wrapped = self.accelerator.prepare(answering, optimizer)
        self._zero: Any = engine.optimizer
        self._inner: torch.optim.Optimizer = self._zero.optimizer
        return Prepared(replace(denoiser, through=engine), wrapped, engine)

    @contextmanager
    def adding_up(self, *, last: bool) -> Iterator[None]:
        """DeepSpeed is told that a step is over with the last, and takes it."""
        self.accelerator.sync_gradients = last
        try:
            yield
        finally:
            self.accelerator.sync_gradients = True

    def clip(self, most: float) -> Tensor:
        """DeepSpeed has clipped to what its configuration says, which is ``most``."""
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), most)
        return torch.tensor(float(norm))

    @property
    def names(self) -> list[str]:
        """Group by group."""
        return [name for names in self._groups for name in names]

    def optimizer_parts(self) -> dict[str, Any]:
        """The pieces of DeepSpeed's flat tensors, by parameter."""
        state, groups, index = {}, [], 0
        for names, group in zip(self._groups, self._inner.param_groups, strict=True):
            numbers = range(index, index + len(names))
            for number, name in zip(numbers, names, strict=True):
                found = self._state_of(name)
                if found:
                    state[number] = found
            index += len(names)
            groups.append({**_without_parameters(group), "params": list(numbers)})
        return {"state": state, "param_groups": groups}

    def load_optimizer(self, document: Mapping[str, Any]) -> None:
        """Lay the pieces of all parameters into DeepSpeed's flat tensors."""
        self._inner.state.clear()
        for number, state in document["state"].items():
            name = self.names[int(number)]
            flat, start, count = self._flat_of(name)
            held = self._inner.state[flat]
            for key, value in state.items():
                if not isinstance(value, Tensor) or value.dim() == 0:
                    held[key] = value.to(flat.device) if isinstance(value, Tensor) else value
                    continue
                if key not in held:
                    held[key] = torch.zeros_like(flat)
                held[key].narrow(0, start, count).copy_(value)
        for group, told in zip(self._inner.param_groups, document["param_groups"], strict=True):
            group.update(_without_parameters(told))

    def _state_of(self, name: str) -> dict[str, Any]:
        """The optimiser's state of one parameter, tensors as this process's part of them."""
        flat, start, count = self._flat_of(name)
        return {
            key: value.narrow(0, start, count)
            if isinstance(value, Tensor) and value.shape == flat.shape
            else value
            for key, value in self._inner.state.get(flat, {}).items()
        }

    @abstractmethod
    def _flat_of(self, name: str) -> tuple[Tensor, int, int]:
        """The flat fp32 tensor with this process's part of a parameter, its start and length."""

    def parts(self) -> Named:
        """Pieces of the flat fp32 tensors, ``(N,)``; some are empty."""
        return {name: self._piece(name) for name in self._parameters}

    def _piece(self, name: str) -> Tensor:
        flat, start, count = self._flat_of(name)
        return flat.detach().narrow(0, start, count)


class ZeroReplicated(Zero):
    """Stages 1 and 2: every process holds all weights, and the fp32 master of some."""

    def gathered(self, name: str, part: Tensor) -> Tensor:
        """Every piece in its place, and nothing elsewhere, added up."""
        parameter = self._parameters[name]
        device = self.accelerator.device
        whole = torch.zeros(parameter.numel(), dtype=part.dtype, device=device)
        whole.narrow(0, *self.span(name)).copy_(part)
        distributed.all_reduce(whole)
        return whole.view(parameter.shape)

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """The piece whose master lies here."""
        _check_shape(name, whole, self._parameters[name].shape)
        return whole.flatten().narrow(0, *self.span(name))

    @torch.no_grad()
    def put(self, parts: Mapping[str, Tensor]) -> None:
        """Masters first, then the weights of all."""
        for name, present in self.parts().items():
            present.copy_(parts[name])
            self._parameters[name].copy_(self.gathered(name, present))

    def frozen(self, name: str) -> Tensor:
        """As it is: only what is trained is cut."""
        return self.module.get_parameter(name)

    def span(self, name: str) -> tuple[int, int]:
        """The piece whose master lies here."""
        mapping = _mapping(self._parameters[name])
        if mapping is None:
            return 0, 0
        address = mapping.lp_fragment_address
        return address.start, address.numel

    def _flat_of(self, name: str) -> tuple[Tensor, int, int]:
        group = next(n for n, names in enumerate(self._groups) if name in names)
        flat: Tensor = self._zero.single_partition_of_fp32_groups[group]
        mapping = _mapping(self._parameters[name])
        if mapping is None:
            return flat, 0, 0
        address = mapping.hp_fragment_address
        return flat, address.start, address.numel


class ZeroSharded(Zero):
    """Stage 3: weights are spread too, frozen ones included."""

    def gathered(self, name: str, part: Tensor) -> Tensor:
        """The pieces of all, without what fills up the last."""
        parameter: Any = self.module.get_parameter(name)
        piece = part.to(self.accelerator.device).contiguous()
        pieces = [torch.empty_like(piece) for _ in range(self.accelerator.num_processes)]
        distributed.all_gather(pieces, piece)
        whole = torch.cat(pieces)
        return whole.narrow(0, 0, parameter.ds_numel).view(parameter.ds_shape)

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """The piece that lies here, filled up to the length that all have."""
        parameter: Any = self._parameters[name]
        _check_shape(name, whole, parameter.ds_shape)
        length = parameter.ds_tensor.numel()
        missing = length * self.accelerator.num_processes - whole.numel()
        filled = functional.pad(whole.flatten(), (0, missing))
        return filled.narrow(0, length * self.accelerator.process_index, length)

    def span(self, name: str) -> tuple[int, int]:
        """Each process has as many numbers, until there are none left."""
        parameter: Any = self._parameters[name]
        length = parameter.ds_tensor.numel()
        start = min(length * self.accelerator.process_index, parameter.ds_numel)
        return start, min(length, parameter.ds_numel - start)

    @torch.no_grad()
    def put(self, parts: Mapping[str, Tensor]) -> None:
        """Masters first, then the pieces of the weights."""
        for name, present in self.parts().items():
            present.copy_(parts[name])
            parameter: Any = self._parameters[name]
            parameter.ds_tensor.copy_(present)
            if parameter.ds_status.name == "AVAILABLE":  # small ones stay gathered: do it anew
                parameter.partition(has_been_updated=False)
                parameter.all_gather()

    def frozen(self, name: str) -> Tensor:
        """The pieces of all."""
        parameter: Any = self.module.get_parameter(name)
        return self.gathered(name, parameter.ds_tensor)

    def count(self, parameter: nn.Parameter) -> int:
        """Of the whole: only an empty tensor is left in its place."""
        return int(getattr(parameter, "ds_numel", parameter.numel()))

    def _flat_of(self, name: str) -> tuple[Tensor, int, int]:
        zero, parameter = self._zero, self._parameters[name]
        group, start, count = zero.grad_position[zero.get_param_id(parameter)]
        return zero.fp32_partitioned_groups_flat[group], start, count


def configuration(spec: TrainingSpec) -> dict[str, Any]:
    """What DeepSpeed is told."""
    asked = spec.distributed
    zero: dict[str, Any] = {"stage": asked.zero_stage, **asked.options}
    if asked.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if asked.offload_parameters == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": spec.batch_size,
        "gradient_accumulation_steps": 1,  # the loop counts, and divides
        "gradient_clipping": spec.optimizer.max_grad_norm or 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's own runs on the CPU too, unbuilt
    }


def load_deepspeed() -> None:
    """Import DeepSpeed, told of the device, without what it would build on the first use.

    Raises:
        BadSpecError: it is not installed.
    """
    is_cpu = not torch.accelerator.is_available()
    if is_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("DS_SKIP_CUDA_CHECK", "1")  # nothing is compiled
    try:
        import deepspeed  # noqa: PLC0415 -- seconds, and an extra
        from deepspeed.utils.logging import logger  # noqa: PLC0415
    except ImportError as error:
        raise BadSpecError(
            "training.distributed.strategy: deepspeed is not installed: pip install "
            "'st-fleet[deepspeed]', or use fsdp2"
        ) from error
    logger.setLevel(logging.ERROR)
    if is_cpu:  # a faster way to add up in shared memory, a hundred seconds of a compiler's work
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _mapping(parameter: nn.Parameter) -> Any:
    """Where DeepSpeed keeps the master of a piece of ``parameter``; None: in other processes."""
    return cast("Any", parameter)._hp_mapping  # noqa: SLF001 -- its public functions copy


def _without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _check_shape(name: str, whole: Tensor, wanted: torch.Size) -> None:
    if whole.shape != wanted:
        raise ValueError(f"{name} has another shape, {tuple(whole.shape)}")
