"""Several processes share the tokens of one sample, by the plan that Diffusers has of the model.

Each computes the gradient that flows through its own tokens, so their sum is that of the sample;
since gradients are averaged over all processes, the loss counts once for each that shares it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh

from st_shared.spec.distributed import DistributedSpec
from st_trainer.errors import BadSpecError
from st_trainer.families.components import class_named
from st_trainer.families.family import Denoiser

FIELD = "training.distributed.context_parallel"


def share_tokens(denoiser: Denoiser, asked: DistributedSpec, processes: int) -> None:
    """Make neighbours among the ``processes`` share what the model of ``denoiser`` is asked.

    Raises:
        BadSpecError: the model has no plan, its heads cannot be divided, or the device cannot.
    """
    module: Any = denoiser.module
    together = asked.context_parallel
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    if getattr(module, "_cp_plan", None) is None:
        raise BadSpecError(
            f"{FIELD}: Diffusers has no plan for {type(module).__name__}, which says where its "
            "tokens are cut: drop the key"
        )
    is_ring = asked.context_parallel_kind == "ring"
    if is_ring and not torch.accelerator.is_available():
        raise BadSpecError(
            f"{FIELD}_kind: ring needs attention that also gives its normaliser, which torch has "
            "on GPUs alone: use ulysses"
        )
    heads = getattr(module.config, "num_attention_heads", together)
    if not is_ring and heads % together:
        raise BadSpecError(
            f"{FIELD}: ulysses deals {heads} heads over {together} processes: choose a divisor"
        )
    configuration: Any = class_named("diffusers.ContextParallelConfig")
    shape = (
        (processes // together, together, 1) if is_ring else (processes // together, 1, together)
    )
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("data", "ring", "ulysses"))
    degrees = {"ring_degree": shape[1], "ulysses_degree": shape[2]}
    with _one_device():
        module.enable_parallelism(config=configuration(**degrees, mesh=mesh))


@contextmanager
def _one_device() -> Iterator[None]:
    """Where there is no accelerator, Diffusers counts none, and divides by that."""
    real = torch.accelerator.device_count
    if not torch.accelerator.is_available():
        torch.accelerator.device_count = lambda: 1
    try:
        yield
    finally:
        torch.accelerator.device_count = real
