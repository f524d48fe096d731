"""``flux``: Flux.1, a transformer on packed latents with T5 and CLIP (Black Forest Labs 2024)."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from st_shared.spec.families import FluxConfig
from st_shared.spec.objective import ObjectiveSpec
from st_trainer.data.medium import Shape
from st_trainer.families.control import CONTROL, flux_copy, in_type, in_type_of
from st_trainer.families.family import Assets, Condition
from st_trainer.families.kohya_names import FLUX
from st_trainer.families.packing import packed, places, unpacked
from st_trainer.families.pretrained import ATTENTION, Pretrained, picture_latents
from st_trainer.families.prompts import last_hidden, pooled
from st_trainer.objectives.flow_matching import FlowMatching, shifted_path
from st_trainer.objectives.objective import Objective

_CONTEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


class Flux(Pretrained[FluxConfig]):
    """Flux.1 dev, whose guidance is distilled, and schnell, which has none."""

    name = "flux"
    components: ClassVar = {
        "transformer": "diffusers.FluxTransformer2DModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "tokenizer": "transformers.CLIPTokenizer",
        "text_encoder_2": "transformers.T5EncoderModel",
        "tokenizer_2": "transformers.T5TokenizerFast",
        "scheduler": "diffusers.FlowMatchEulerDiscreteScheduler",
    }
    pipeline = "diffusers.FluxPipeline"
    lora_presets: ClassVar = {
        "default": ATTENTION,
        "all": (*ATTENTION, *_CONTEXT, *_FEED_FORWARD, "proj_mlp", "proj_out"),
        "context": _CONTEXT,
    }
    comfy_prefix = "transformer"
    kohya_modules = FLUX
    text_encoders: ClassVar = {"text_encoder": "lora_te1"}
    controlnet = "diffusers.FluxControlNetModel"
    control_is_encoded = True
    text_options = ("caption_length", "training_guidance")
    usual_guidance = 3.5
    is_distilled = True

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """Velocity; dev is sampled with a shift by the number of tokens."""
        return FlowMatching(spec, shifted_path(assets["scheduler"].config))

    def tokens(self, shape: Shape) -> int:
        """Squares of 2x2 values."""
        return (shape[-2] // 2) * (shape[-1] // 2)

    def encode(self, config: FluxConfig, assets: Assets, captions: Sequence[str]) -> Condition:
        """T5's last layer, CLIP's vector, and the guidance of training."""
        text = last_hidden(
            assets["text_encoder_2"], assets["tokenizer_2"], captions, config.caption_length
        )
        return {
            "text": text,
            "pooled": pooled(assets["text_encoder"], assets["tokenizer"], captions),
            "guidance": torch.full((len(captions),), config.training_guidance, device=text.device),
        }

    def seen(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> dict[str, Any]:
        """What the network is asked with."""
        text, config = condition["text"], cast("Any", module.config)
        height, width = noisy.shape[-2:]
        return {
            "hidden_states": packed(noisy),
            "timestep": times,
            "guidance": condition["guidance"] if config.guidance_embeds else None,
            "pooled_projections": condition["pooled"],
            "encoder_hidden_states": text,
            "txt_ids": torch.zeros(text.shape[1], 3, device=noisy.device),
            "img_ids": places(height, width, noisy.device),
        }

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The network takes tokens and times 0 to 1, and gives ``noise - clean``."""
        height, width = noisy.shape[-2:]
        seen, told = self.seen(module, noisy, times, condition), {}
        if CONTROL in condition:
            controlnet: Any = module.controlnet
            read = {**seen, "controlnet_cond": packed(condition[CONTROL])}
            double, single = controlnet(**in_type_of(controlnet, read), return_dict=False)
            told["controlnet_block_samples"] = in_type(double, noisy)
            told["controlnet_single_block_samples"] = in_type(single, noisy)
        answer: Tensor = module(**seen, **told, return_dict=False)[0]
        return unpacked(answer, height, width)

    def control(self, assets: Assets, pictures: Tensor) -> Tensor:
        """Their latents."""
        return picture_latents(assets, pictures)

    def controlnet_copy(self, module: nn.Module, assets: Assets) -> nn.Module:
        """The first blocks of both kinds."""
        del assets
        return flux_copy(self.controlnet, module)
