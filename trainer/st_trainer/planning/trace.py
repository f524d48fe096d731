"""What a computation would hold and do, from running it on tensors without values."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
_CPU_ATTENTION_BACK = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001


@dataclass(frozen=True)
class Work:
    """What a computation does; what several do is added up."""

    operations: int = 0
    """Multiplications and additions, as torch's own counter has them."""
    touched: int = 0
    """Bytes read and written by kernels without any of those."""
    kernels: int = 0
    exchanged: int = 0
    """Bytes sent to other processes."""

    def __add__(self, other: "Work") -> "Work":
        return self._by(other, 1)

    def __sub__(self, other: "Work") -> "Work":
        return self._by(other, -1)

    def __mul__(self, times: int) -> "Work":
        return Work()._by(self, times)

    def _by(self, other: "Work", times: int) -> "Work":
        return Work(
            self.operations + times * other.operations,
            self.touched + times * other.touched,
            self.kernels + times * other.kernels,
            self.exchanged + times * other.exchanged,
        )


@dataclass(frozen=True)
class Mark:
    """A moment of a computation that has a name."""

    name: Any
    live: int
    """Bytes that live then."""
    work: Work
    """What was done until then."""


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of new storages while they live, and what is done.

    Storages that were there before, such as weights, are not counted, nor are views. What an
    operation holds of its own while it runs is: see ``_WORKSPACES``.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        """Bytes of what lives now."""
        self.peak = 0
        """Most of it at once."""
        self.work = Work()
        """What was done until now."""
        self.marks = [Mark(None, 0, self.work)]
        """The beginning, and what ``mark`` was told."""
        self.peaks = [0]
        """Most bytes at once from each mark to the next."""
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
        before = self.live
        result = func(*args, **kwargs)
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._count(each.untyped_storage())
        packet = getattr(func, "_overloadpacket", None)
        if workspace := _WORKSPACES.get(packet):
            self._reach(before + workspace(args, result))
        exchange = _EXCHANGES.get(packet)
        if exchange or not _is_free(func):
            self.work += _work(packet, args, kwargs, result)
        return result

    def mark(self, name: Any) -> None:
        """Give this moment a name."""
        self.marks.append(Mark(name, self.live, self.work))
        self.peaks.append(self.live)

    def _reach(self, size: int) -> None:
        self.peak = max(self.peak, size)
        self.peaks[-1] = max(self.peaks[-1], size)

    def _count(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known[storage] = None
        size = storage.nbytes()
        self.live += size
        self._reach(self.live)
        finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.live -= size


def _is_free(func: Any) -> bool:
    """Whether nothing is computed: a question, a view of what is there, or room."""
    space, _, name = func._schema.name.partition("::")  # noqa: SLF001
    return space != "aten" or func.is_view or name in _ROOM


_ROOM = frozenset(
    {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}
)


def _work(packet: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Work:
    """What one kernel does; a product is taken to wait for its operations, others for memory."""
    exchanged = _EXCHANGES[packet](args) if packet in _EXCHANGES else 0
    count = _OPERATIONS.get(packet) or flop_registry.get(packet)
    if count:
        return Work(int(count(*args, **kwargs, out_val=result)), 0, 1, exchanged)
    touched = sum(map(_bytes, tree_leaves((args, kwargs, result))))
    return Work(0, touched, 1, exchanged)


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


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size() if isinstance(tensor, Tensor) else 0


def _convolution(args: Any, result: Any) -> int:
    """Copies of input, weight and output in the order of values that the library computes in.

    oneDNN has blocks of channels, cuDNN channels last; the output is then copied into torch's
    order, when the other copies are gone. With a kernel of one value it is a product of matrices.
    """
    seen, weight = args[:2]
    if prod(weight.shape[2:]) == 1:
        return 0
    made = _bytes(result)
    return made + max(_bytes(seen) + _bytes(weight), made)


def _convolution_back(args: Any, result: Any) -> int:
    """The same for the gradient of the input, and then for that of the weight."""
    gradient, seen, weight = args[:3]
    if prod(weight.shape[2:]) == 1:
        return 0
    of_input, of_weight = _bytes(result[0]), _bytes(result[1])
    first = of_input + max(_bytes(gradient) + _bytes(weight), of_input) if of_input else 0
    second = of_input + _bytes(gradient) + _bytes(seen) + 2 * of_weight if of_weight else 0
    return max(first, second)


_WORKSPACES: dict[Any, Callable[[Any, Any], int]] = {
    torch.ops.aten.convolution: _convolution,
    torch.ops.aten.convolution_backward: _convolution_back,
}
"""Bytes that an operation holds at its peak, its results among them, from arguments and results."""


def _dealt(args: Any) -> int:
    """What is sent where each process keeps one part of ``(N, ...)`` and gives the others away."""
    sent, outputs = args[0], args[1]
    return _bytes(sent) * (len(outputs) - 1) // len(outputs)


def _gathered(args: Any) -> int:
    """What is sent where each of ``args[1]`` processes passes its tensor to all others."""
    return _bytes(args[0]) * (int(args[1]) - 1)


def _added_up(args: Any) -> int:
    """What is sent where each of ``args[2]`` processes gets the sum of one part of ``(N, ...)``."""
    return _bytes(args[0]) * (int(args[2]) - 1) // int(args[2])


_EXCHANGES: dict[Any, Callable[[Any], int]] = {
    torch.ops._c10d_functional.all_to_all_single: _dealt,  # noqa: SLF001
    torch.ops._c10d_functional.all_gather_into_tensor: _gathered,  # noqa: SLF001
    torch.ops._c10d_functional.reduce_scatter_tensor: _added_up,  # noqa: SLF001
}
"""Bytes that a process sends, by the operation, from its arguments."""
