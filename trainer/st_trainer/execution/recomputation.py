"""Gradient checkpointing: activations are computed anew in the backward pass; Chen et al. 2016."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from st_trainer.execution.blocks import repeated_blocks

_contexts: list[Callable[[], AbstractContextManager[Any]]] = []


@contextmanager
def anew_under(context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Blocks that are answered meanwhile are computed anew under ``context``; autograd leaves it.

    Autocast and random numbers are as they were without this.
    """
    _contexts.append(context)
    try:
        yield
    finally:
        _contexts.pop()


def recompute(module: Any, interval: int) -> None:
    """Keep no activations inside of every ``interval``-th block of ``module``.

    Dropout draws the same numbers again, so gradients are the same to the last bit.
    """
    if getattr(module, "_supports_gradient_checkpointing", False):
        module.enable_gradient_checkpointing(_every(interval))
        return
    for index, (_, block) in enumerate(repeated_blocks(module)):
        if index % interval == 0:
            block.forward = _recomputed(block)


def _every(interval: int) -> Callable[..., Any]:
    """What Diffusers calls in place of each block; blocks are counted as they are first met."""
    places: dict[int, int] = {}

    def call(block: Callable[..., Any], *told: Any) -> Any:
        place = places.setdefault(id(block), len(places)) if isinstance(block, nn.Module) else 0
        if place % interval:
            return block(*told)
        return checkpoint(block, *told, use_reentrant=False, **_under())

    return call


def _recomputed(block: nn.Module) -> Callable[..., Any]:
    """The forward of ``block``; what its hooks do before it is done before it is computed anew."""
    plain = block.forward

    def forward(*told: Any, **named: Any) -> Any:
        with_names = block._forward_pre_hooks_with_kwargs  # noqa: SLF001 -- no public way
        for number, hook in block._forward_pre_hooks.items():  # noqa: SLF001
            if number not in with_names:  # those are FSDP's, which has brought its weights already
                hook(block, told)
        return plain(*told, **named)

    def call(*told: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*told, **named)
        return checkpoint(forward, *told, use_reentrant=False, **_under(), **named)

    return call


def _under() -> dict[str, Any]:
    if not _contexts:
        return {}
    context = _contexts[-1]
    return {"context_fn": lambda: (nullcontext(), context())}
