"""Configuration files of published models, without weights: what a plan is made from.

Widths and depths as the models' papers and cards give them, for timing and for a picture of what
a plan says; what is left out has the default of its class. A plan of a real model reads its own
files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st_trainer.families.pretrained import Pretrained
from st_trainer.families.registry import REGISTRY

Parts = Mapping[str, Mapping[str, Any]]

_CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "projection_dim": 768,
}  # fmt: skip
_CLIP_G = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 20, "projection_dim": 1280,
}  # fmt: skip
_T5 = {
    "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "vocab_size": 32128,
}  # fmt: skip
_VAE = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_VAE_16 = {
    **_VAE, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
_DDPM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

SIZES: dict[str, tuple[str, Parts]] = {
    "sd1 0.9B": (
        "sd1",
        {
            "unet": {
                "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
                "attention_head_dim": 8, "sample_size": 64,
            },
            "vae": _VAE,
            "text_encoder": _CLIP_L,
            "scheduler": _DDPM,
        },
    ),
    "sdxl 2.6B": (
        "sdxl",
        {
            "unet": {
                "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
                "attention_head_dim": [5, 10, 20], "transformer_layers_per_block": [1, 2, 10],
                "use_linear_projection": True, "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "sample_size": 128,
            },
            "vae": _VAE,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "scheduler": _DDPM,
        },
    ),
    "pixart 0.6B": (
        "pixart",
        {
            "transformer": {"caption_channels": 4096, "sample_size": 128},
            "vae": _VAE,
            "text_encoder": _T5,
            "scheduler": {"beta_start": 0.0001, "beta_end": 0.02},
        },
    ),
    "sd3 2.5B": (
        "sd3",
        {
            "transformer": {
                "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
                "pos_embed_max_size": 384, "qk_norm": "rms_norm",
                "dual_attention_layers": list(range(13)),
            },
            "vae": _VAE_16,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "text_encoder_3": _T5,
            "scheduler": {"shift": 3.0},
        },
    ),
    "sd3 8B": (
        "sd3",
        {
            "transformer": {
                "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
                "pos_embed_max_size": 192, "qk_norm": "rms_norm",
            },
            "vae": _VAE_16,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "text_encoder_3": _T5,
            "scheduler": {"shift": 3.0},
        },
    ),
    "flux 12B": (
        "flux",
        {
            "transformer": {"guidance_embeds": True},
            "vae": _VAE_16,
            "text_encoder": _CLIP_L,
            "text_encoder_2": _T5,
            "scheduler": {"shift": 3.0, "use_dynamic_shifting": True},
        },
    ),
    "wan 1.3B": (
        "wan",
        {
            "transformer": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
            "vae": {},
            "text_encoder": {**_T5, "vocab_size": 256384},
            "scheduler": {"flow_shift": 3.0},
        },
    ),
    "wan 14B": (
        "wan",
        {
            "transformer": {},
            "vae": {},
            "text_encoder": {**_T5, "vocab_size": 256384},
            "scheduler": {"flow_shift": 5.0},
        },
    ),
    "ace_step 2B": (
        "ace_step",
        {
            "transformer": {"encoder_hidden_size": 2048},
            "vae": {"sampling_rate": 48000, "downsampling_ratios": [2, 4, 4, 6, 10]},
            "condition_encoder": {},
            "text_encoder": {
                "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
                "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
                "vocab_size": 151669,
            },
        },
    ),
}  # fmt: skip
"""Family and parts by a name that says the size of the denoiser."""


def write_sizes(name: str, folder: Path) -> str:
    """Write the files of the model ``name`` into ``folder``; gives its family."""
    family, parts = SIZES[name]
    code = REGISTRY[family]
    assert isinstance(code, Pretrained)
    folder.mkdir(parents=True)
    index = {"_class_name": code.pipeline.rpartition(".")[2]}
    (folder / "model_index.json").write_text(json.dumps(index))
    for part, place in code.components.items():
        target = folder / part
        target.mkdir()
        library, kind = place.split(".", 1)
        values = dict(parts.get(part, {}))
        if "Tokenizer" in kind:
            continue
        if library == "diffusers":
            values["_class_name"] = kind
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        (target / file).write_text(json.dumps(values))
    return family
