"""Optimisers by name: where their class lies, and what it is told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from st_shared.spec.families import FAMILIES
from st_shared.spec.optimizer import OptimizerSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.optimizers.host import HostOptimizer
from st_trainer.optimizers.state import (
    StateBytes,
    blocks,
    factored,
    moments,
    muon,
    soap,
    two_moments,
)
from st_trainer.optimizers.uncompiled import spare_compiler
from st_trainer.quantization.libraries import library

Arguments = Callable[[OptimizerSpec], dict[str, Any]]


def _decayed(spec: OptimizerSpec) -> dict[str, Any]:
    return {"weight_decay": spec.weight_decay}


def _adaptive(spec: OptimizerSpec) -> dict[str, Any]:
    betas = (spec.beta1, spec.beta2)
    return {"betas": betas, "eps": spec.epsilon, "weight_decay": spec.weight_decay}


def _two_betas(spec: OptimizerSpec) -> dict[str, Any]:
    return {"betas": (spec.beta1, spec.beta2), "weight_decay": spec.weight_decay}


def _momentum(spec: OptimizerSpec) -> dict[str, Any]:
    return {"momentum": spec.beta1, "weight_decay": spec.weight_decay}


@dataclass(frozen=True)
class Kind:
    """One optimiser."""

    place: str
    """Its class, such as ``torch.optim.AdamW``; imported when it is used."""
    arguments: Arguments = _decayed
    """Arguments besides the parameters and ``lr``."""
    finds_rate: bool = False
    """Whether it finds the learning rate by itself, so that 1 is meant."""
    has_average: bool = False
    """Whether it keeps an average of the weights itself, and has ``train`` and ``eval``."""
    state_bytes: StateBytes = two_moments
    """Bytes of its state of one weight of a shape, whose values are fp32."""


OPTIMIZERS: dict[str, Kind] = {
    "adamw": Kind("torch.optim.AdamW", lambda spec: {**_adaptive(spec), "fused": True}),
    "adam": Kind("torch.optim.Adam", lambda spec: {**_adaptive(spec), "fused": True}),
    "adagrad": Kind("torch.optim.Adagrad", state_bytes=moments(1)),
    "adadelta": Kind("torch.optim.Adadelta"),
    "adamax": Kind("torch.optim.Adamax", _adaptive),
    "asgd": Kind("torch.optim.ASGD", state_bytes=moments(1)),
    "nadam": Kind("torch.optim.NAdam", _adaptive),
    "radam": Kind("torch.optim.RAdam", _adaptive),
    "rmsprop": Kind("torch.optim.RMSprop", state_bytes=moments(1)),
    "sgd": Kind("torch.optim.SGD", _momentum, state_bytes=moments(1)),
    "adafactor": Kind("torch.optim.Adafactor", state_bytes=factored(0)),
    "prodigy": Kind("prodigyopt.Prodigy", _adaptive, finds_rate=True, state_bytes=moments(4)),
    "adamw_schedulefree": Kind("schedulefree.AdamWScheduleFree", _adaptive, has_average=True),
    "sgd_schedulefree": Kind(
        "schedulefree.SGDScheduleFree", _momentum, has_average=True, state_bytes=moments(1)
    ),
    "came": Kind("came_pytorch.CAME", state_bytes=factored(1)),
    "stableadamw": Kind("optimi.StableAdamW", _adaptive),
    "lion": Kind("optimi.Lion", _two_betas, state_bytes=moments(1)),
    "adan": Kind("optimi.Adan", state_bytes=moments(4)),
    "ranger": Kind("optimi.Ranger", _adaptive, state_bytes=moments(3)),
    "soap": Kind("pytorch_optimizer.SOAP", _two_betas, state_bytes=soap),
    "ademamix": Kind("pytorch_optimizer.AdEMAMix", state_bytes=moments(3)),
    "muon": Kind("st_trainer.optimizers.muon.Muon", _adaptive, state_bytes=muon),
    "dadaptation": Kind(
        "pytorch_optimizer.DAdaptAdam", _two_betas, finds_rate=True, state_bytes=moments(3)
    ),
    "adamw_8bit": Kind("bitsandbytes.optim.AdamW8bit", _adaptive, state_bytes=blocks(2, 8, 256)),
    "paged_adamw_8bit": Kind(
        "bitsandbytes.optim.PagedAdamW8bit", _adaptive, state_bytes=blocks(2, 8, 256)
    ),
    "lion_8bit": Kind("bitsandbytes.optim.Lion8bit", _two_betas, state_bytes=blocks(1, 8, 256)),
    "ademamix_8bit": Kind("bitsandbytes.optim.AdEMAMix8bit", state_bytes=blocks(3, 8, 256)),
}


def peak_rate(spec: TrainingSpec) -> float:
    """The learning rate that is asked for, or what suits the optimiser and what is trained."""
    if spec.optimizer.learning_rate is not None:
        return spec.optimizer.learning_rate
    if OPTIMIZERS[spec.optimizer.name].finds_rate:
        return 1.0
    if spec.adapter_kind not in {"full", "controlnet"} or spec.adapter.controlnet.lora:
        return 1e-4
    return 1e-5 if FAMILIES[spec.model.family].needs_base else 1e-3


def make_optimizer(
    parameters: Iterable[nn.Parameter | dict[str, Any]], spec: OptimizerSpec, rate: float
) -> torch.optim.Optimizer:
    """The optimiser of ``spec`` over ``parameters``, or groups of them; the loop sets the rate.

    Raises:
        BadSpecError: its class does not take the options, or is not installed.
    """
    if spec.offload:
        return HostOptimizer(parameters, lambda groups: _made(groups, spec, rate))
    return _made(list(parameters), spec, rate)


def _made(parameters: list[Any], spec: OptimizerSpec, rate: float) -> torch.optim.Optimizer:
    kind = OPTIMIZERS[spec.name]
    module, _, name = kind.place.rpartition(".")
    try:
        of_kind: Any = getattr(library(module), name)
        spare_compiler(of_kind)
        made: torch.optim.Optimizer = of_kind(
            parameters, lr=rate, **{**kind.arguments(spec), **spec.options}
        )
    except ImportError as error:
        raise BadSpecError(
            f"training.optimizer.name: {spec.name} needs {error.name}: pip install it"
        ) from error
    except (TypeError, ValueError) as error:
        raise BadSpecError(f"training.optimizer: {spec.name} refuses: {error}") from error
    _spare_host(made)
    return made


def _spare_host(optimizer: torch.optim.Optimizer) -> None:
    """No kernels of Triton for weights on the host.

    optimi 0.3.3 has StableAdamW choose before it has looked at its weights, so wherever Triton is.
    """
    for group in optimizer.param_groups:
        if "triton" in group and any(each.device.type == "cpu" for each in group["params"]):
            group["triton"] = False
