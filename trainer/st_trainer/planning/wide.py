"""What autocast computes in fp32 on a GPU and not on a CPU, where plans are traced."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

_NAMES = (
    "layer_norm", "group_norm", "rms_norm", "softmax", "log_softmax", "softplus", "interpolate",
    "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "pow", "__pow__",
    "__rpow__", "sum", "prod", "cumsum", "cumprod", "logsumexp", "norm", "dist", "cdist",
    "cosine_similarity", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
)  # fmt: skip
"""From torch's documentation of autocast, "CUDA Ops that can autocast to float32"."""


def _functions() -> Iterable[Any]:
    for owner in (torch, functional, Tensor):
        for name in _NAMES:
            if hasattr(owner, name):
                yield getattr(owner, name)


_WIDE = frozenset(_functions())


class WideAsOnGpu(TorchFunctionMode):
    """Casts what such a function is given, so that what is kept for the way back is as large."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """``func`` of wide tensors, if it is one of them."""
        del types
        kwargs = kwargs or {}
        if func in _WIDE and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, _wide, (args, kwargs))
        return func(*args, **kwargs)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in {torch.bfloat16, torch.float16} else tensor
