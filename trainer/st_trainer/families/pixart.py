"""``pixart``: PixArt-Sigma, a small transformer on latents with T5 (Chen et al. 2024).

PixArt-alpha (Chen et al. 2023) has the same network; its 1024-pixel models are told the size.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from st_shared.spec.families import PixartConfig
from st_shared.spec.objective import ObjectiveSpec
from st_trainer.data.medium import Shape
from st_trainer.families.family import Assets, Condition
from st_trainer.families.pretrained import ATTENTION, Pretrained
from st_trainer.families.prompts import masked_hidden
from st_trainer.objectives.ddpm import Ddpm, NoiseSchedule
from st_trainer.objectives.objective import Objective

_PIXELS = 8
"""Pixels of a latent's side: PixArt has no other VAE."""


class Pixart(Pretrained[PixartConfig]):
    """PixArt-Sigma, and -alpha where its folder has the same parts."""

    name = "pixart"
    components: ClassVar = {
        "transformer": "diffusers.PixArtTransformer2DModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.T5EncoderModel",
        "tokenizer": "transformers.T5TokenizerFast",
        "scheduler": "diffusers.DDPMScheduler",
    }
    pipeline = "diffusers.PixArtSigmaPipeline"
    lora_presets: ClassVar = {
        "default": ATTENTION,
        "all": (*ATTENTION, "ff.net.0.proj", "ff.net.2"),
    }
    comfy_reads_diffusers = True
    usual_guidance = 4.5

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """Noise prediction on the scheduler's own steps, spaced as its DPM-Solver does."""
        schedule = NoiseSchedule.of(assets["scheduler"])
        if schedule.spacing == "linspace":
            schedule = replace(schedule, spacing="solver")
        return Ddpm(spec, schedule)

    def tokens(self, shape: Shape) -> int:
        """Squares of 2x2 values."""
        return (shape[-2] // 2) * (shape[-1] // 2)

    def encode(self, config: PixartConfig, assets: Assets, captions: Sequence[str]) -> Condition:
        """T5's last layer and its mask, of captions in lower case."""
        text, mask = masked_hidden(
            assets["text_encoder"],
            assets["tokenizer"],
            [caption.lower().strip() for caption in captions],
            config.caption_length,
        )
        return {"text": text, "mask": mask}

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The network takes whole steps, and gives noise, then a variance that is not used."""
        answer: Tensor = module(
            noisy,
            encoder_hidden_states=condition["text"],
            encoder_attention_mask=condition["mask"],
            timestep=times,
            added_cond_kwargs=_size(module, noisy),
            return_dict=False,
        )[0]
        return answer[:, : noisy.shape[1]]


def _size(module: nn.Module, noisy: Tensor) -> dict[str, Tensor | None]:
    """Height and width in pixels, and their ratio, where the model was trained with them."""
    if not cast("Any", module).use_additional_conditions:
        return {"resolution": None, "aspect_ratio": None}
    batch, _, height, width = noisy.shape
    resolution = torch.tensor([height * _PIXELS, width * _PIXELS]).to(noisy)
    return {
        "resolution": resolution.expand(batch, 2),
        "aspect_ratio": torch.tensor([[height / width]]).to(noisy).expand(batch, 1),
    }
