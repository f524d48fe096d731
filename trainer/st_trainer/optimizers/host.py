"""An optimiser in the memory of the host: its state is there, and its steps are made there.

torchao's ``CPUOffloadOptimizer`` copies gradients while they are computed, so before they are
clipped, and keeps weights of its own that a resumed run would go back to; this one copies both when
it steps.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


class HostOptimizer(torch.optim.Optimizer):
    """What ``make`` makes of copies of the weights; the weights follow the copies."""

    def __init__(self, params: Iterable[nn.Parameter | dict[str, Any]], make: Make) -> None:
        given = list(params)
        groups = [each for each in given if isinstance(each, dict)]
        groups = groups or [{"params": given}]
        self._pairs: list[tuple[Tensor, nn.Parameter]] = []
        self._inner = make([{**group, "params": self._copies(group)} for group in groups])
        self.defaults = self._inner.defaults

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Groups of the copies."""
        return self._inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """State of the copies, on the host."""
        return self._inner.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Copy weights and gradients to the host, step there, copy the weights back."""
        loss = closure() if closure else None
        for weight, copy in self._pairs:
            copy.copy_(weight.detach(), non_blocking=True)
            copy.grad = None if weight.grad is None else weight.grad.to("cpu", copy=True)
        _settled(self._pairs)
        self._inner.step()
        for weight, copy in self._pairs:
            copy.grad = None
            weight.copy_(copy, non_blocking=True)
        _settled(self._pairs)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the weights."""
        del set_to_none
        for weight, _ in self._pairs:
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """That of the copies."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """That of the copies."""
        self._inner.load_state_dict(dict(state_dict))

    def _copies(self, group: Mapping[str, Any]) -> list[nn.Parameter]:
        copies = []
        for weight in group["params"]:
            copy = nn.Parameter(weight.detach().to("cpu", copy=True))
            copies.append(copy)
            self._pairs.append((weight, copy))
        return copies


def _settled(pairs: list[tuple[Tensor, nn.Parameter]]) -> None:
    """Return once what was copied without waiting is there."""
    if pairs and pairs[0][0].device.type == "cuda":
        torch.cuda.synchronize(pairs[0][0].device)
