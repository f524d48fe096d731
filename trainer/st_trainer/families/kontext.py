"""``kontext``: Flux.1 Kontext, which edits pictures by instruction (Black Forest Labs 2025).

It is ``flux`` with the latents of a picture, the reference, behind those that are drawn.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from st_shared.spec.families import KontextConfig
from st_trainer.data.buckets import Size
from st_trainer.data.images import Images
from st_trainer.families.family import REFERENCE, Assets, Condition
from st_trainer.families.flux import Flux
from st_trainer.families.packing import packed, places, unpacked
from st_trainer.families.pretrained import config_of

_STEP = 16
"""Sides of pictures are multiples of it: a token is 2x2 values of latents, each of 8x8 pixels."""
_BASE = 1024
_UPRIGHT: tuple[Size, ...] = (
    (1568, 672),
    (1504, 688),
    (1456, 720),
    (1392, 752),
    (1328, 800),
    (1248, 832),
    (1184, 880),
    (1104, 944),
)
"""Heights and widths that Kontext was trained with beside ``_BASE`` squared, upright ones; the list
of Diffusers' pipeline, which brings each reference to the nearest."""


class Kontext(Flux):
    """Flux.1 Kontext dev. Without a reference it draws as Flux does."""

    name = "kontext"
    pipeline = "diffusers.FluxKontextPipeline"
    controlnet: ClassVar = None  # type: ignore[assignment]
    usual_guidance = 2.5

    def medium(self, config: KontextConfig) -> Images:  # type: ignore[override]
        """Pictures, beside which are others of about ``reference_resolution`` squared."""
        sizes = reference_sizes(config.reference_resolution or config.resolution)
        return Images(3, config.resolution, config.resolution, references=sizes)

    def longest(self, config: KontextConfig, assets: Assets) -> Condition:  # type: ignore[override]
        """One caption, and a square reference, whose tokens are about as many as any other's."""
        found, vae = super().longest(config, assets), config_of(assets, "vae")
        pixels = config.reference_resolution or config.resolution
        side = pixels // 2 ** (len(vae.block_out_channels) - 1)
        found[REFERENCE] = torch.zeros(1, vae.latent_channels, side, side)
        return found

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """What ``flux`` answers, asked with the reference's tokens behind those of ``noisy``.

        They are told apart by the first number of their places: 0 of what is drawn, 1 of what is
        only seen. Answers to those are dropped.
        """
        height, width = noisy.shape[-2:]
        seen: dict[str, Any] = self.seen(module, noisy, times, condition)
        drawn = seen["hidden_states"].shape[1]
        if REFERENCE in condition:
            tokens, where = reference_tokens(condition[REFERENCE])
            seen["hidden_states"] = torch.cat([seen["hidden_states"], tokens], dim=1)
            seen["img_ids"] = torch.cat([seen["img_ids"], where])
        answer: Tensor = module(**seen, return_dict=False)[0]
        return unpacked(answer[:, :drawn], height, width)


def reference_tokens(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``(B, N, 4C)`` of references ``(B, C, h, w)``, and their places ``(N, 3)``."""
    height, width = latents.shape[-2:]
    where = places(height, width, latents.device)
    where[:, 0] = 1
    return packed(latents), where


def reference_sizes(resolution: int) -> tuple[Size, ...]:
    """Sizes that references are brought to: Kontext's own, in the scale of ``resolution``.

    The square comes first; each other one of about its area is there upright and lying.
    """
    scaled = [tuple(_scaled(side, resolution) for side in size) for size in _UPRIGHT]
    both = [size for height, width in scaled for size in ((height, width), (width, height))]
    return tuple(dict.fromkeys([(resolution, resolution), *both]))


def _scaled(side: int, resolution: int) -> int:
    return max(round(side * resolution / _BASE / _STEP), 1) * _STEP
