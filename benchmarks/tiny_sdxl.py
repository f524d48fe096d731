"""A Stable Diffusion XL of a million weights, random, with pictures to train it on."""

import sys
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fixtures.tiny.parts import clip_tokenizer

PIXELS = 128


def build_model(folder: Path) -> int:
    """Write the model below ``folder``; gives the number of weights of its UNet."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(24, 32, 40),
        layers_per_block=2, cross_attention_dim=64, attention_head_dim=(2, 4, 4),
        norm_num_groups=8, transformer_layers_per_block=(1, 1, 2), use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 32, 32), latent_channels=4, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025,
    )  # fmt: skip
    config = CLIPTextConfig(
        vocab_size=514, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, bos_token_id=512, eos_token_id=513, projection_dim=32,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        unet=unet, vae=vae, text_encoder=CLIPTextModel(config), tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(config), tokenizer_2=clip_tokenizer(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
        add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip
    return sum(weight.numel() for weight in unet.parameters())


def make_pictures(folder: Path, count: int = 8) -> None:
    """Squares of one colour each, with captions."""
    folder.mkdir()
    for index in range(count):
        colour = (30 * index, 255 - 30 * index, 128)
        Image.new("RGB", (PIXELS, PIXELS), colour).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a square of colour {index}")
