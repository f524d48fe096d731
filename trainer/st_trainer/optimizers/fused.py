"""Steps in the backward pass: a weight moves as soon as its gradient is known, which then goes.

So there are never the gradients of all weights at once; Lv et al. 2023, "LOMO", section 3.1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class FusedBackward(torch.optim.Optimizer):
    """``inner``, stepped weight by weight by hooks; ``step`` itself has nothing left to do."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self._inner = inner
        self.defaults = inner.defaults
        self._squares: list[Tensor] = []
        for place, group in enumerate(inner.param_groups):
            for weight in group["params"]:
                weight.register_post_accumulate_grad_hook(self._hook(place))

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Those of ``inner``."""
        return self._inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """That of ``inner``."""
        return self._inner.state

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """All weights have moved already."""
        return closure() if closure else None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """All gradients are gone already."""

    def state_dict(self) -> dict[str, Any]:
        """That of ``inner``."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """That of ``inner``."""
        self._inner.load_state_dict(state_dict)

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients since it was last asked, a scalar."""
        squares, self._squares = self._squares, []
        return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())

    def _hook(self, place: int) -> Callable[[Tensor], None]:
        def stepped(weight: Tensor) -> None:
            assert weight.grad is not None  # noqa: S101 -- for mypy: it has just been accumulated
            self._squares.append(weight.grad.detach().float().square().sum())
            inner = self._inner
            groups = inner.param_groups
            inner.param_groups = [{**groups[place], "params": [weight]}]
            try:
                inner.step()
            finally:
                inner.param_groups = groups
            weight.grad = None

        return stepped
