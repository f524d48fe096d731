"""``sd3``: Stable Diffusion 3 and 3.5, a transformer on latents with two CLIPs and T5.

Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis".
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_shared.spec.families import Sd3Config
from st_shared.spec.objective import ObjectiveSpec
from st_trainer.data.medium import Shape
from st_trainer.families.control import CONTROL, in_type, in_type_of, sd3_copy
from st_trainer.families.family import Assets, Condition
from st_trainer.families.kohya_names import SD3
from st_trainer.families.pretrained import ATTENTION, Pretrained, picture_latents
from st_trainer.families.prompts import last_hidden, token_ids
from st_trainer.objectives.flow_matching import FlowMatching, scheduler_path
from st_trainer.objectives.objective import Objective

_CONTEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


class Sd3(Pretrained[Sd3Config]):
    """Stable Diffusion 3 medium, 3.5 medium and large."""

    name = "sd3"
    components: ClassVar = {
        "transformer": "diffusers.SD3Transformer2DModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModelWithProjection",
        "tokenizer": "transformers.CLIPTokenizer",
        "text_encoder_2": "transformers.CLIPTextModelWithProjection",
        "tokenizer_2": "transformers.CLIPTokenizer",
        "text_encoder_3": "transformers.T5EncoderModel",
        "tokenizer_3": "transformers.T5TokenizerFast",
        "scheduler": "diffusers.FlowMatchEulerDiscreteScheduler",
    }
    pipeline = "diffusers.StableDiffusion3Pipeline"
    lora_presets: ClassVar = {
        "default": ATTENTION,
        "all": (*ATTENTION, *_CONTEXT, *_FEED_FORWARD),
        "context": _CONTEXT,
    }
    comfy_reads_diffusers = True
    kohya_modules = SD3
    text_encoders: ClassVar = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    controlnet = "diffusers.SD3ControlNetModel"
    control_is_encoded = True
    usual_guidance = 7.0

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """Velocity; sampled at the times that the scheduler makes of a number of steps."""
        return FlowMatching(spec, scheduler_path(assets["scheduler"]))

    def tokens(self, shape: Shape) -> int:
        """Squares of 2x2 values."""
        return (shape[-2] // 2) * (shape[-1] // 2)

    def encode(self, config: Sd3Config, assets: Assets, captions: Sequence[str]) -> Condition:
        """CLIP's 77 tokens, both encoders side by side, then T5's; both vectors joined.

        ``text`` is ``(B, 77 + caption_length, D)`` with T5's width D: zeros stand beside CLIP's
        narrower tokens. Esser et al. 2024, section 5.2 and figure 2.
        """
        t5 = last_hidden(
            assets["text_encoder_3"], assets["tokenizer_3"], captions, config.caption_length
        )
        length = assets["tokenizer"].model_max_length
        found = [_clip(assets, suffix, captions, length) for suffix in ("", "_2")]
        clip = torch.cat([states for states, _ in found], dim=-1)
        padded = functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return {
            "text": torch.cat([padded, t5], dim=1),
            "pooled": torch.cat([vector for _, vector in found], dim=-1),
        }

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The network takes times 0 to 1000, and gives ``noise - clean``."""
        seen = {
            "hidden_states": noisy,
            "timestep": times * 1000,
            "encoder_hidden_states": condition["text"],
            "pooled_projections": condition["pooled"],
        }
        told = {}
        if CONTROL in condition:
            controlnet: Any = module.controlnet
            read = {**seen, "controlnet_cond": condition[CONTROL]}
            (added,) = controlnet(**in_type_of(controlnet, read), return_dict=False)
            told["block_controlnet_hidden_states"] = in_type(added, noisy)
        answer: Tensor = module(**seen, **told, return_dict=False)[0]
        return answer

    def control(self, assets: Assets, pictures: Tensor) -> Tensor:
        """Their latents."""
        return picture_latents(assets, pictures)

    def controlnet_copy(self, module: nn.Module, assets: Assets) -> nn.Module:
        """The first blocks."""
        del assets
        return sd3_copy(self.controlnet, module)

    def controlnet_idle(self, controlnet: nn.Module) -> Sequence[nn.Module]:
        """The last block makes text that no other reads."""
        last: Any = cast("Any", controlnet).transformer_blocks[-1]
        attn = last.attn
        parts = (attn.add_q_proj, attn.norm_added_q, attn.to_add_out, last.ff_context)
        return [part for part in parts if part is not None]


def _clip(
    assets: Assets, suffix: str, captions: Sequence[str], length: int
) -> tuple[Tensor, Tensor]:
    """The last layer but one ``(B, length, D)`` of one CLIP, and its projected vector."""
    encoder: Any = assets[f"text_encoder{suffix}"]
    ids = token_ids(assets[f"tokenizer{suffix}"], captions, length, encoder.device)
    found = encoder(ids, output_hidden_states=True)
    return found.hidden_states[-2], found.text_embeds
