"""``sdxl``: Stable Diffusion XL, a UNet that reads two CLIPs and sizes (Podell et al. 2023)."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from st_shared.spec.families import SdxlConfig
from st_shared.spec.objective import ObjectiveSpec
from st_trainer.data.facts import SampleFacts
from st_trainer.families.components import class_named
from st_trainer.families.control import unet_copy
from st_trainer.families.family import Assets, Condition, Denoiser
from st_trainer.families.pretrained import ATTENTION, Pretrained, config_of
from st_trainer.families.prompts import token_ids
from st_trainer.families.unet import unet_answer
from st_trainer.objectives.ddpm import Ddpm, NoiseSchedule
from st_trainer.objectives.losses import over_samples
from st_trainer.objectives.objective import Objective

_BLOCKS = tuple(
    rename
    for block in range(3)
    for layer in range(3)
    for rename in (
        (rf"^down_blocks\.{block}\.resnets\.{layer}", f"input_blocks.{3 * block + layer + 1}.0"),
        (rf"^down_blocks\.{block}\.attentions\.{layer}", f"input_blocks.{3 * block + layer + 1}.1"),
        (rf"^up_blocks\.{block}\.resnets\.{layer}", f"output_blocks.{3 * block + layer}.0"),
        (rf"^up_blocks\.{block}\.attentions\.{layer}", f"output_blocks.{3 * block + layer}.1"),
    )
)
"""Diffusers counts blocks, then layers; Stability's own names count layers right through."""

_OTHERS = (
    (r"^down_blocks\.(0)\.downsamplers\.0\.conv", "input_blocks.3.0.op"),
    (r"^down_blocks\.(1)\.downsamplers\.0\.conv", "input_blocks.6.0.op"),
    (r"^up_blocks\.0\.upsamplers\.0\.conv", "output_blocks.2.2.conv"),
    (r"^up_blocks\.1\.upsamplers\.0\.conv", "output_blocks.5.2.conv"),
    (r"^mid_block\.resnets\.0", "middle_block.0"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.1", "middle_block.2"),
    (r"^(\w+_blocks?\.[\d.]+\.)conv1$", r"\1in_layers.2"),
    (r"^(\w+_blocks?\.[\d.]+\.)conv2$", r"\1out_layers.3"),
    (r"^(\w+_blocks?\.[\d.]+\.)time_emb_proj$", r"\1emb_layers.1"),
    (r"^(\w+_blocks?\.[\d.]+\.)conv_shortcut$", r"\1skip_connection"),
)


class Sdxl(Pretrained[SdxlConfig]):
    """Stable Diffusion XL base; what it predicts, the scheduler's file says."""

    name = "sdxl"
    components: ClassVar = {
        "unet": "diffusers.UNet2DConditionModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "tokenizer": "transformers.CLIPTokenizer",
        "text_encoder_2": "transformers.CLIPTextModelWithProjection",
        "tokenizer_2": "transformers.CLIPTokenizer",
        "scheduler": "diffusers.DDPMScheduler",
    }
    denoiser = "unet"
    pipeline = "diffusers.StableDiffusionXLPipeline"
    lora_presets: ClassVar = {
        "default": ATTENTION,
        "all": (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    }
    kohya_prefix = "lora_unet"
    controlnet = "diffusers.ControlNetModel"
    text_encoders: ClassVar = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    comfy_renames: ClassVar = (*_BLOCKS, *_OTHERS)
    usual_guidance = 5.0

    def load(self, base: str, config: SdxlConfig, dtype: torch.dtype) -> Denoiser:
        """The parts, and what the pipeline's own file says of the empty text."""
        denoiser = super().load(base, config, dtype)
        offline = {"local_files_only": True} if Path(base).is_dir() else {}
        options = class_named(self.pipeline).load_config(base, **offline)
        denoiser.assets["empty_is_zero"] = options.get("force_zeros_for_empty_prompt", True)
        return denoiser

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """Noise prediction on the scheduler's own steps."""
        return Ddpm(spec, NoiseSchedule.of(assets["scheduler"]))

    def encode(self, config: SdxlConfig, assets: Assets, captions: Sequence[str]) -> Condition:
        """The last layer but one of both CLIPs, side by side, and the vector of the second.

        The empty text is zero where the pipeline's file says so, as in the published model.
        """
        del config
        states = []
        for end in ("", "_2"):
            encoder, tokenizer = assets[f"text_encoder{end}"], assets[f"tokenizer{end}"]
            ids = token_ids(tokenizer, captions, tokenizer.model_max_length, encoder.device)
            answer = encoder(ids, output_hidden_states=True)
            states.append(answer.hidden_states[-2])
        found = {"text": torch.cat(states, dim=-1), "pooled": answer.text_embeds}
        if assets["empty_is_zero"]:
            kept = torch.tensor([bool(each) for each in captions], device=ids.device)
            return {
                name: torch.where(over_samples(kept, each), each, 0) for name, each in found.items()
            }
        return found

    def describe(self, config: SdxlConfig, facts: Sequence[SampleFacts]) -> Condition:
        """Original size, crop and size, ``(B, 6)``; Podell et al. 2023, section 2.2."""
        del config
        rows = [(*each.original_size, *each.crop, *each.size) for each in facts]
        return {"sizes": torch.tensor(rows)}

    def controlnet_copy(self, module: nn.Module, assets: Assets) -> nn.Module:
        """The first half of the UNet."""
        return unet_copy(self.controlnet, module, config_of(assets, "vae"))

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The network takes whole steps, and gives noise or ``v`` as it is."""
        told = {"text_embeds": condition["pooled"], "time_ids": condition["sizes"]}
        return unet_answer(module, noisy, times, condition, added_cond_kwargs=told)
