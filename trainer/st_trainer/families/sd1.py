"""``sd1``: Stable Diffusion 1, a UNet on latents (Rombach et al. 2022) that reads CLIP."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from st_shared.spec.families import ImageConfig
from st_shared.spec.objective import ObjectiveSpec
from st_trainer.families.control import unet_copy
from st_trainer.families.family import Assets, Condition
from st_trainer.families.pretrained import ATTENTION, Pretrained, config_of
from st_trainer.families.prompts import last_hidden
from st_trainer.families.unet import unet_answer
from st_trainer.objectives.ddpm import Ddpm, NoiseSchedule
from st_trainer.objectives.objective import Objective


class Sd1(Pretrained[ImageConfig]):
    """Stable Diffusion 1.x; 2.x too, whose scheduler's file says ``v_prediction``."""

    name = "sd1"
    components: ClassVar = {
        "unet": "diffusers.UNet2DConditionModel",
        "vae": "diffusers.AutoencoderKL",
        "text_encoder": "transformers.CLIPTextModel",
        "tokenizer": "transformers.CLIPTokenizer",
        "scheduler": "diffusers.DDPMScheduler",
    }
    denoiser = "unet"
    pipeline = "diffusers.StableDiffusionPipeline"
    lora_presets: ClassVar = {
        "default": ATTENTION,
        "all": (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    }
    kohya_prefix = "lora_unet"
    controlnet = "diffusers.ControlNetModel"
    text_encoders: ClassVar = {"text_encoder": "lora_te"}
    usual_guidance = 7.5

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """Noise prediction on the scheduler's own steps."""
        return Ddpm(spec, NoiseSchedule.of(assets["scheduler"]))

    def encode(self, config: ImageConfig, assets: Assets, captions: Sequence[str]) -> Condition:
        """CLIP's last layer, 77 tokens, padding included."""
        del config
        tokenizer = assets["tokenizer"]
        length = tokenizer.model_max_length
        return {"text": last_hidden(assets["text_encoder"], tokenizer, captions, length)}

    def controlnet_copy(self, module: nn.Module, assets: Assets) -> nn.Module:
        """The first half of the UNet."""
        return unet_copy(self.controlnet, module, config_of(assets, "vae"))

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The network takes whole steps, and gives noise or ``v`` as it is."""
        return unet_answer(module, noisy, times, condition)
