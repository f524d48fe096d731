"""Optimisers without torch's compiler, which they would load to ask it to keep out of them."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.optim import Optimizer

_NOTED = "__dynamo_disable"
"""Where ``torch._compile`` keeps a function that the compiler keeps out of."""
_GUARD = "_use_grad"
"""What torch puts around a step: it breaks a graph that is compiled, and sets gradients."""


def spare_compiler(kind: type[Optimizer]) -> None:
    """Let optimisers of ``kind`` work without loading ``torch._dynamo``, a third of a start.

    Their methods load it when they are first called, to tell the compiler to keep out. Only blocks
    of the model are ever compiled here, so it meets none of them. Where torch does this in another
    way than it did in 2.13, it loads the compiler as before.
    """
    for method in vars(Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, _NOTED):
            setattr(plain, _NOTED, plain)
    step = kind.step
    if getattr(getattr(step, "__code__", None), "co_name", "") == _GUARD:
        kind.step = _unguarded(step.__wrapped__)  # type: ignore[attr-defined, method-assign]


def _unguarded(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` with gradients only where the optimiser is to be differentiated itself."""

    @wraps(step)
    def take(self: Optimizer, *arguments: Any, **named: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *arguments, **named)

    return take
