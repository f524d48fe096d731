"""Muon for matrices, AdamW for everything else; Jordan et al. 2024, Liu et al. 2025."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_IS_MATRIX = "is_matrix"


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` over weights of two dimensions, ``torch.optim.AdamW`` over the others.

    Steps of matrices are scaled to the size of AdamW's (Liu et al. 2025, section 2.2), so that one
    learning rate and one weight decay suit both.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter | dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
    ) -> None:
        matrices, others = _divided(params)
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(
                torch.optim.Muon(
                    matrices,
                    lr=lr,
                    weight_decay=weight_decay,
                    momentum=momentum,
                    nesterov=nesterov,
                    ns_steps=ns_steps,
                    adjust_lr_fn=adjust_lr_fn,
                )
            )
        if others:
            self._parts.append(
                torch.optim.AdamW(
                    others, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
                )
            )
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both; groups and state are this optimiser's, so that one file keeps them."""
        loss = closure() if closure else None
        for part in self._parts:
            kind = isinstance(part, torch.optim.Muon)
            part.state = self.state
            part.param_groups = [each for each in self.param_groups if each[_IS_MATRIX] is kind]
            part.step()
        return loss


def _divided(
    params: Iterable[nn.Parameter | dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each group as two: its matrices, and what has fewer or more dimensions; none is empty."""
    given = list(params)
    groups = [each for each in given if isinstance(each, dict)]
    loose: list[Tensor] = [each for each in given if not isinstance(each, dict)]
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in [*groups, *([{"params": loose}] if loose else [])]:
        for is_matrix, place in ((True, found[0]), (False, found[1])):
            own = [each for each in group["params"] if (each.dim() == 2) is is_matrix]
            if own:
                place.append({**group, "params": own, _IS_MATRIX: is_matrix})
    return found
