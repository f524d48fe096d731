"""``wan``: Wan 2.1 text to video, a transformer on video latents with UMT5 (Wan Team 2025)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from st_shared.spec.families import WanConfig
from st_shared.spec.objective import ObjectiveSpec
from st_trainer.data.medium import Shape
from st_trainer.data.videos import Videos
from st_trainer.errors import BadSpecError
from st_trainer.families.components import class_named
from st_trainer.families.family import Assets, Condition, Denoiser
from st_trainer.families.pretrained import ATTENTION, Pretrained, config_of
from st_trainer.families.prompts import zero_padded
from st_trainer.objectives.flow_matching import FlowMatching, shifted_path
from st_trainer.objectives.objective import Objective

_STEPS = 1000
"""The network's time of pure noise."""


class Wan(Pretrained[WanConfig]):
    """Wan 2.1 text to video, 1.3B and 14B."""

    name = "wan"
    components: ClassVar = {
        "transformer": "diffusers.WanTransformer3DModel",
        "vae": "diffusers.AutoencoderKLWan",
        "text_encoder": "transformers.UMT5EncoderModel",
        "tokenizer": "transformers.T5TokenizerFast",
        "scheduler": "diffusers.UniPCMultistepScheduler",
    }
    pipeline = "diffusers.WanPipeline"
    lora_presets: ClassVar = {
        "default": ATTENTION,
        "all": (*ATTENTION, "ffn.net.0.proj", "ffn.net.2"),
    }
    comfy_renames: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"\.attn1\.", ".self_attn."),
        (r"\.attn2\.", ".cross_attn."),
        (r"\.to_([qkv])$", r".\1"),
        (r"\.to_out\.0$", ".o"),
        (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
        (r"\.ffn\.net\.2$", ".ffn.2"),
    )
    usual_guidance = 5.0

    def load(self, base: str, config: WanConfig, dtype: torch.dtype) -> Denoiser:
        """The model at ``base``, frozen; ``BadSpecError`` where it is told of other things."""
        denoiser = super().load(base, config, dtype)
        self.check_base(base, denoiser.module, denoiser.assets["vae"])
        return denoiser

    def check_base(self, base: str, module: Any, vae: Any) -> None:
        """Raise ``BadSpecError`` where the model also wants an image."""
        seen, drawn = module.config.in_channels, vae.config.z_dim
        if seen != drawn:
            raise BadSpecError(
                f"training.model.base: {base} takes {seen} channels of latents, its VAE gives "
                f"{drawn}: give a model for text to video, or use family wan_i2v"
            )

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """Velocity; samples follow the shift that the scheduler's file asks for."""
        return FlowMatching(spec, shifted_path({"shift": assets["scheduler"].config.flow_shift}))

    def sample_shape(self, config: WanConfig) -> Shape:
        """``(3, F, H, W)``."""
        return 3, config.frames, config.height, config.width

    def medium(self, config: WanConfig) -> Videos:
        """RGB frames at the rate of the configuration."""
        return Videos(config.frames, config.height, config.width, config.frame_rate)

    def latent_shape(self, config: WanConfig, assets: Assets) -> Shape:
        """The first frame has a latent frame of its own, then four share one."""
        vae = config_of(assets, "vae")
        frames = (config.frames - 1) // vae.scale_factor_temporal + 1
        scale = vae.scale_factor_spatial
        return vae.z_dim, frames, config.height // scale, config.width // scale

    def tokens(self, shape: Shape) -> int:
        """Squares of 2x2 values in each latent frame."""
        return shape[-3] * (shape[-2] // 2) * (shape[-1] // 2)

    def encode(self, config: WanConfig, assets: Assets, captions: Sequence[str]) -> Condition:
        """UMT5's last layer, 0 after the last token."""
        clean = class_named("diffusers.pipelines.wan.pipeline_wan.prompt_clean")
        texts = [clean(caption) for caption in captions]
        encoder, tokenizer = assets["text_encoder"], assets["tokenizer"]
        return {"text": zero_padded(encoder, tokenizer, texts, config.caption_length)}

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The caption is all that the network is told."""
        return self.answered(module, noisy, times, encoder_hidden_states=condition["text"])

    def answered(self, module: nn.Module, seen: Tensor, times: Tensor, **told: Tensor) -> Tensor:
        """The network takes times 0 to 1000, and gives ``noise - clean``."""
        steps = times * _STEPS
        answer: Tensor = module(hidden_states=seen, timestep=steps, **told, return_dict=False)[0]
        return answer
