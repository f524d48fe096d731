"""LoftQ: LoRA for a base that is used in four bits; Li et al. 2023, algorithm 1 with one round.

The base is rounded to what it will be once loaded in nf4, and the matrices start as what rounding
took away. More rounds would round something else than the base that users load.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
"""Values of nf4: quantiles of a normal, scaled to 1; Dettmers et al. 2023, appendix E."""
_BLOCK = 64
"""Weights that share one scale, as bitsandbytes has it."""


@torch.no_grad()
def nf4_rounded(weight: Tensor) -> Tensor:
    """``weight`` as it comes back from nf4, of the same shape and type.

    Each run of 64 values is scaled by its largest size; Dettmers et al. 2023, section 3.
    """
    levels = torch.tensor(_LEVELS, device=weight.device)
    flat = weight.float().flatten()
    blocks = functional.pad(flat, (0, -len(flat) % _BLOCK)).view(-1, _BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    shares = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)
    rounded = levels[torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2)] * scales
    return rounded.flatten()[: len(flat)].view_as(weight).to(weight.dtype)


@torch.no_grad()
def round_base(module: nn.Module) -> dict[str, Tensor]:
    """Round the linear layers of ``module`` as a loader of nf4 does; gives what each lost.

    Layers that their class wants in full precision stay as they are.
    """
    kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
    lost = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and not any(part in kept for part in name.split(".")):
            before = layer.weight.float().clone()
            layer.weight.copy_(nf4_rounded(layer.weight))
            lost[name] = before - layer.weight.float()
    return lost


@torch.no_grad()
def start_from(layer: Any, lost: Tensor, adapter: str) -> None:
    """Let the matrices of a PEFT layer be the best approximation of ``lost`` of their rank."""
    first, second = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    left, sizes, right = torch.linalg.svd(lost, full_matrices=False)
    rank, scaling = len(first), layer.scaling[adapter]
    roots = (sizes / scaling).sqrt()[:rank]
    first.zero_()[: len(roots)] = roots[:, None] * right[:rank]
    second.zero_()[:, : len(roots)] = left[:, :rank] * roots
    if adapter in getattr(layer, "lora_magnitude_vector", {}):
        layer.lora_magnitude_vector[adapter].update_layer(
            base_layer=layer.get_base_layer(), lora_A=first, lora_B=second, scaling=scaling
        )
