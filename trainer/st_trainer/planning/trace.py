"""What a computation would hold and do, from running it on tensors without values."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
_CPU_ATTENTION_BACK = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of new storages while they live, and floating-point operations.

    Storages that were there before, such as weights, are not counted, nor are views.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        """Bytes of what lives now."""
        self.peak = 0
        """Most of it at once."""
        self.operations = 0
        """Multiplications and additions, as torch's own counter has them."""
        self._known: WeakKeyDictionary[Any, None] = WeakKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func``, and look at what it made."""
        del types
        kwargs = kwargs or {}
        for each in tree_leaves((args, kwargs)):
            if isinstance(each, Tensor):
                self._known.setdefault(each.untyped_storage(), None)
        result = func(*args, **kwargs)
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._count(each.untyped_storage())
        packet = getattr(func, "_overloadpacket", None)
        if count := _OPERATIONS.get(packet) or flop_registry.get(packet):
            self.operations += int(count(*args, **kwargs, out_val=result))
        return result

    def _count(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known[storage] = None
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.live -= size


def _attention(query: Any, key: Any, *_rest: Any, **_named: Any) -> int:
    """Two products of ``(B, H, N, D)`` and ``(B, H, M, D)``."""
    batch, heads, tokens, width = query.shape
    return int(4 * batch * heads * tokens * key.shape[2] * width)


def _attention_back(_gradient: Any, query: Any, key: Any, *rest: Any, **named: Any) -> int:
    """Five products, where the forward pass has two; Dao 2023, section 3.1."""
    return 5 * _attention(query, key, *rest, **named) // 2


_OPERATIONS: dict[Any, Callable[..., int]] = {
    _CPU_ATTENTION: _attention,
    _CPU_ATTENTION_BACK: _attention_back,
}
"""Those that torch's counter leaves out."""
