"""``wan_i2v``: Wan 2.1 image to video; the first frame is given, by its latents and through CLIP.

Wan Team 2025, section 5.1; the layout is that of Diffusers' ``WanImageToVideoPipeline``.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_trainer.errors import BadSpecError
from st_trainer.families.family import MEAN, VALUE, Assets, Condition, Encoding
from st_trainer.families.first_frame import FIRST_FRAME, IMAGE, Beginning, FromPicture
from st_trainer.families.pretrained import config_of, normalised
from st_trainer.families.wan import Wan

_TEXT_TOKENS = 512
"""Diffusers' attention takes the last so many tokens for the caption, the others for the image."""
_OF_IMAGE = ("add_k_proj", "add_v_proj")
"""Without these Diffusers takes a LoRA for one of text to video, and warns of what it adds."""


class WanI2V(FromPicture, Wan):
    """Wan 2.1 image to video, 14B at 480p and 720p."""

    name = "wan_i2v"
    components: ClassVar = Wan.components | {
        "image_encoder": "transformers.CLIPVisionModel",
        "image_processor": "transformers.CLIPImageProcessor",
    }
    pipeline = "diffusers.WanImageToVideoPipeline"
    lora_presets: ClassVar = {name: (*ends, *_OF_IMAGE) for name, ends in Wan.lora_presets.items()}
    comfy_renames: ClassVar = (*Wan.comfy_renames, (r"\.add_([kv])_proj$", r".\1_img"))

    def check_base(self, base: str, module: Any, vae: Any) -> None:
        """Refuse a model that wants no picture, two of them, or is told of it in another way."""
        config = module.config
        wanted = 2 * vae.config.z_dim + vae.config.scale_factor_temporal
        if config.in_channels != wanted or config.image_dim is None:
            raise BadSpecError(
                f"training.model.base: {base} takes {config.in_channels} channels and "
                f"{'no image' if config.image_dim is None else 'an image'}, but one of Wan 2.1 for "
                f"image to video takes {wanted} and an image: give such a model, or use family wan"
            )
        if config.pos_embed_seq_len is not None:
            raise BadSpecError(
                f"training.model.base: {base} also wants the last frame, which is not supported: "
                "give a model that goes on from one picture"
            )

    def embedded(self, assets: Assets, pictures: Tensor) -> Encoding:
        """CLIP's last hidden layer but one, of the picture as its processor sizes and cuts it."""
        encoder: Any = assets["image_encoder"]
        bytes_ = (pictures.cpu() * 255).round().to(torch.uint8)
        seen = assets["image_processor"](images=list(bytes_), return_tensors="pt").pixel_values
        found = encoder(seen.to(encoder.device, encoder.dtype), output_hidden_states=True)
        return {VALUE: found.hidden_states[-2]}

    def begun(self, assets: Assets, beginning: Beginning) -> Encoding:
        """The mean of the posterior of a video that is grey, but for its first frame."""
        vae: Any = assets["vae"]
        first = (2 * beginning.pictures - 1).to(vae.device, vae.dtype)
        video = first.new_zeros(*first.shape[:2], beginning.frames, *first.shape[2:])
        video[:, :, 0] = first
        return {MEAN: vae.encode(video).latent_dist.mean}

    def begins(self, assets: Assets, image: Encoding, first_frame: Encoding) -> Condition:
        """As they are, latents normalised."""
        latents = normalised(first_frame[MEAN].float(), config_of(assets, "vae"))
        return {IMAGE: image[VALUE], FIRST_FRAME: latents}

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """Channels are latents, a mask that is 1 in the first frame, and what is known of it."""
        known = condition[FIRST_FRAME]
        count = (noisy.shape[1], known.shape[1])
        config: Any = module.config
        mask = noisy.new_zeros(len(noisy), config.in_channels - sum(count), *noisy.shape[2:])
        mask[:, :, 0] = 1
        text = condition["text"]
        padding = (0, 0, 0, _TEXT_TOKENS - text.shape[1])
        return self.answered(
            module,
            torch.cat([noisy, mask, known], dim=1),
            times,
            encoder_hidden_states=functional.pad(text, padding),
            encoder_hidden_states_image=condition[IMAGE],
        )
