"""LoRA files whose projections are fused: Kohya's layout of ``flux`` and ``sd3``.

The pairs of three projections become one pair: first matrices on top of each other, second ones
along a diagonal, zero elsewhere. sd-scripts writes that with ``split_qkv``, Diffusers knows it, and
whoever does not multiplies it out to the same. A pair that is not of that form is read as well:
each projection gets the first matrix and its rows of the second.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from st_trainer.errors import BadSpecError
from st_trainer.families.kohya_names import Names

_PREFIX = "lora_unet_"

Pair = tuple[Tensor, Tensor]
"""Matrices ``(rank, in)`` and ``(out, rank)`` whose product is added as it is."""


def fused_name(name: str, table: Names) -> str | None:
    """Kohya's name for the module that holds ours; None where it has none."""
    return next(iter(_groups([name], table)), None)


def check_fusible(names: Iterable[str], table: Names, *, dora: bool) -> None:
    """Find out before training whether the modules ``names`` can be written.

    Raises:
        BadSpecError: one has no name there, or its magnitudes have no place.
    """
    if dora:
        raise BadSpecError(
            "training.adapter.layout: fused projections hold no magnitudes of dora: use layout "
            "diffusers, or drop adapter.dora"
        )
    unknown = [name for name in names if fused_name(name, table) is None]
    if unknown:
        raise BadSpecError(
            f"training.adapter.layout: kohya has no name for {unknown[0]}: use layout diffusers, "
            "or leave it out with adapter.exclude"
        )


def fused(pairs: Mapping[str, Pair], module: nn.Module, table: Names) -> dict[str, Tensor]:
    """The tensors of a file for ``pairs``, by the module of ``module`` to which each belongs."""
    found = {}
    for name, members in _groups(pairs, table).items():
        own = [pairs.get(member) for member in members]
        rank = max(len(pair[0]) for pair in own if pair)
        sizes = [_rows(module, member) for member in members]
        width = next(pair[0].shape[1] for pair in own if pair)
        blocks = [
            _padded(pair or (torch.zeros(0, width), torch.zeros(size, 0)), rank)
            for pair, size in zip(own, sizes, strict=True)
        ]
        found[f"{name}.lora_down.weight"] = torch.cat([first for first, _ in blocks])
        found[f"{name}.lora_up.weight"] = _diagonal([second for _, second in blocks])
        found[f"{name}.alpha"] = torch.tensor(float(rank * len(members)))
    return found


def parted(tensors: Mapping[str, Tensor], module: nn.Module, table: Names) -> dict[str, Tensor]:
    """``tensors`` of a file with the fused ones as pairs of our modules, alphas multiplied in."""
    found = dict(tensors)
    names = [name for name, _ in module.named_modules()]
    for name, members in _groups(names, table).items():
        first, second = (found.pop(f"{name}.lora_{end}.weight", None) for end in ("down", "up"))
        if first is None or second is None:
            continue
        alpha = found.pop(f"{name}.alpha", torch.tensor(float(len(first))))
        second = second * (alpha.to(second.dtype) / len(first))
        sizes = [_rows(module, member) for member in members]
        if sum(sizes) != len(second):
            raise BadSpecError(
                f"training.adapter.continue_from: {name} has {len(second)} rows, not {sum(sizes)}"
            )
        for member, pair in zip(members, _split(first, second, sizes), strict=True):
            if len(pair[0]):
                found[f"{member}.lora_A.weight"], found[f"{member}.lora_B.weight"] = pair
    return found


def _groups(names: Iterable[str], table: Names) -> dict[str, tuple[str, ...]]:
    """Kohya's names of those modules of which ``names`` has some, and all of their parts."""
    wanted = set(names)
    blocks = {part for name in wanted for part in name.split(".")[1:2] if part.isdigit()} | {"0"}
    return {
        _PREFIX + theirs.format(block).replace(".", "_"): members
        for theirs, ours in table.items()
        for block in sorted(blocks, key=int)
        if wanted & set(members := tuple(each.format(block) for each in ours))
    }


def _rows(module: nn.Module, name: str) -> int:
    layer: Any = module.get_submodule(name)
    return int(layer.out_features)


def _diagonal(blocks: Sequence[Tensor]) -> Tensor:
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined


def _padded(pair: Pair, rank: int) -> Pair:
    """``pair`` with zeros up to ``rank``."""
    first, second = pair
    more = rank - len(first)
    return (
        torch.cat([first, first.new_zeros(more, first.shape[1])]),
        torch.cat([second, second.new_zeros(len(second), more)], dim=1),
    )


def _split(first: Tensor, second: Tensor, sizes: list[int]) -> list[Pair]:
    """A pair for each part, without ranks that do nothing; empty for one that is not adapted."""
    parts = torch.split_with_sizes(second, sizes)
    count = len(sizes)
    if len(first) % count == 0:
        width = len(first) // count
        own = [part[:, n * width : (n + 1) * width] for n, part in enumerate(parts)]
        if torch.equal(_diagonal(own), second):
            pairs = zip(first.chunk(count), own, strict=True)
            return [_without_zeros(a, b) for a, b in pairs]
    return [_without_zeros(first, part) for part in parts]


def _without_zeros(first: Tensor, second: Tensor) -> Pair:
    """Ranks of which both matrices are zero would never learn."""
    used = first.any(dim=1) | second.any(dim=0)
    if not second.any():
        used = torch.zeros_like(used)
    return first[used].contiguous(), second[:, used].contiguous()
