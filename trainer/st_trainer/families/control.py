"""ControlNets: how a copy of a network's first part is made, and what is new in it.

UNets read pictures as they are; transformers read the latents of pictures.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from st_trainer.families.components import class_named

CONTROL = "control"
"""Name in a condition: pictures ``(B, 3, H, W)``, 0 to 1, or their latents ``(B, C, h, w)``."""
NEW = ("controlnet_", "pos_embed_input")
"""How the names of layers begin that have no original in the network that is copied."""

_WIDTHS = (16, 32, 96, 256)
"""Channels of the layers that bring pictures to the size of latents, each half as large."""


def unet_copy(place: str, module: nn.Module, config: Any) -> nn.Module:
    """The first half of a UNet; Zhang et al. 2023, section 3.2. ``config`` is that of the VAE."""
    halvings = len(config.block_out_channels) - 1
    made: nn.Module = class_named(place).from_unet(
        module, conditioning_embedding_out_channels=_WIDTHS[: halvings + 1]
    )
    return made


def sd3_copy(place: str, module: Any) -> nn.Module:
    """As many of the first blocks as Diffusers takes, at most all that also carry the text on.

    Its options are given here, since Diffusers' own ``from_transformer`` changes those of the
    network that it copies.
    """
    kept = min(12, module.config.num_layers - 1)
    dual = [block for block in module.config.dual_attention_layers if block < kept]
    options = dict(module.config) | {
        "num_layers": kept,
        "dual_attention_layers": dual,
        "extra_conditioning_channels": 0,
        "force_zeros_for_pooled_projection": False,
    }
    made: Any = class_named(place).from_config(options)
    for part in ("pos_embed", "time_text_embed", "context_embedder"):
        getattr(made, part).load_state_dict(getattr(module, part).state_dict())
    _copy_blocks(made.transformer_blocks, module.transformer_blocks)
    _zero(made.pos_embed_input)
    copied: nn.Module = made
    return copied


def flux_copy(place: str, module: Any) -> nn.Module:
    """As many of the first blocks as Diffusers takes by itself, as far as there are so many."""
    config = module.config
    with warnings.catch_warnings():  # of what Diffusers itself imports
        warnings.filterwarnings("ignore", ".FluxPosEmbed. is deprecated", FutureWarning)
        made: nn.Module = class_named(place).from_transformer(
            module,
            num_layers=min(4, config.num_layers),
            num_single_layers=min(10, config.num_single_layers),
            attention_head_dim=config.attention_head_dim,
            num_attention_heads=config.num_attention_heads,
        )
    return made


def in_type(tensors: list[Tensor] | None, like: Tensor) -> list[Tensor] | None:
    """What a ControlNet adds, in the type of the network that it is added in."""
    return None if tensors is None else [each.to(like.dtype) for each in tensors]


def in_type_of(controlnet: nn.Module, told: dict[str, Any]) -> dict[str, Any]:
    """``told`` in the type of the ControlNet, which is trained in fp32."""
    kind = next(controlnet.parameters()).dtype
    return {
        name: each.to(kind) if isinstance(each, Tensor) and each.is_floating_point() else each
        for name, each in told.items()
    }


def _copy_blocks(copies: nn.ModuleList, originals: nn.ModuleList) -> None:
    for copy, original in zip(copies, originals, strict=False):  # there are fewer copies
        copy.load_state_dict(original.state_dict())


@torch.no_grad()
def _zero(module: nn.Module) -> None:
    for weight in module.parameters():
        weight.zero_()
