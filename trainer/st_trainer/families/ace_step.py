"""``ace_step``: ACE-Step 1.5, a transformer on latents of sound, with captions and lyrics."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from st_shared.spec.families import AceStepConfig
from st_shared.spec.objective import ObjectiveSpec
from st_trainer.data.lyrics import caption_and_lyrics
from st_trainer.data.medium import Shape
from st_trainer.data.sounds import Sounds
from st_trainer.errors import BadSpecError
from st_trainer.families.components import class_named
from st_trainer.families.family import Assets, Condition, Denoiser, Guide
from st_trainer.families.pretrained import ATTENTION, Pretrained, config_of
from st_trainer.objectives.flow_matching import FlowMatching, shifted_path
from st_trainer.objectives.objective import Objective

_SHIFT = 3.0
"""Of the pipeline's times."""
_TIMBRE_SECONDS = 30
"""Length of the sound that gives the timbre; silence here."""
_LOUDEST = 10 ** (-1 / 20)
"""Peak of what the pipeline gives, -1 dB of full scale."""
_GUIDANCE = "diffusers.guiders.adaptive_projected_guidance"


class AceStep(Pretrained[AceStepConfig]):
    """ACE-Step 1.5, text to music: base, SFT and turbo.

    The first line of a text is the caption, the others are lyrics.
    """

    name = "ace_step"
    components: ClassVar = {
        "transformer": "diffusers.AceStepTransformer1DModel",
        "vae": "diffusers.AutoencoderOobleck",
        "condition_encoder": "diffusers.AceStepConditionEncoder",
        "text_encoder": "transformers.Qwen3Model",
        "tokenizer": "transformers.AutoTokenizer",
    }
    pipeline = "diffusers.AceStepPipeline"
    lora_presets: ClassVar = {
        "default": ATTENTION,
        "all": (*ATTENTION, "gate_proj", "up_proj", "down_proj"),
    }
    comfy_prefix = "base_model.model"
    comfy_renames: ClassVar = ((r"\.to_([qkv])$", r".\1_proj"), (r"\.to_out\.0$", ".o_proj"))
    comfy_alphas = False
    encoders = ("condition_encoder",)
    text_options = (
        "seconds",
        "sample_rate",
        "language",
        "caption_length",
        "lyrics_length",
    )
    usual_guidance = 7.0

    def load(self, base: str, config: AceStepConfig, dtype: torch.dtype) -> Denoiser:
        """The model at ``base``, frozen; ``BadSpecError`` where its VAE has another rate."""
        denoiser = super().load(base, config, dtype)
        rate = denoiser.assets["vae"].config.sampling_rate
        if rate != config.sample_rate:
            raise BadSpecError(
                f"training.model.config.sample_rate: {config.sample_rate}, but the VAE of {base} "
                f"has {rate}: give that"
            )
        return denoiser

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """Velocity; samples follow the pipeline's shift."""
        del assets
        return FlowMatching(spec, shifted_path({"shift": _SHIFT}))

    def sample_shape(self, config: AceStepConfig) -> Shape:
        """Stereo, ``(2, L)``."""
        return 2, config.seconds * config.sample_rate

    def medium(self, config: AceStepConfig) -> Sounds:
        """Stereo at the rate of the VAE."""
        return Sounds(config.seconds * config.sample_rate, config.sample_rate)

    def latent_shape(self, config: AceStepConfig, assets: Assets) -> Shape:
        """``(C, L)``; the network has channels last."""
        vae = config_of(assets, "vae")
        length = config.seconds * config.sample_rate // prod(vae.downsampling_ratios)
        return vae.decoder_input_channels, length

    def samples(self, assets: Assets, latents: Tensor) -> Tensor:
        """What the VAE makes of latents, as loud as the pipeline makes it."""
        sounds = super().samples(assets, latents).float()
        return sounds / sounds.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-6) * _LOUDEST

    def tokens(self, shape: Shape) -> int:
        """Pairs of latents."""
        return -(-shape[-1] // 2)

    def encode(self, config: AceStepConfig, assets: Assets, captions: Sequence[str]) -> Condition:
        """Caption, lyrics and the timbre of silence in one sequence; silence as the source.

        Sequences are as long as the longest of ``captions``. Without any text a caption becomes
        the null embedding, with which the model was trained.
        """
        encoder = assets["condition_encoder"]
        texts = [caption_and_lyrics(each) for each in captions]
        channels, length = self.latent_shape(config, assets)
        silence = encoder.silence_latent
        timbre = silence[:, : _TIMBRE_SECONDS * length // config.seconds]
        text, text_mask, lyrics, lyrics_mask = _prompts(config, assets, texts)
        sequence, _ = encoder(
            text_hidden_states=text,
            text_attention_mask=text_mask,
            lyric_hidden_states=lyrics,
            lyric_attention_mask=lyrics_mask,
            refer_audio_acoustic_hidden_states_packed=timbre.expand(len(texts), -1, -1),
            refer_audio_order_mask=torch.arange(len(texts), device=silence.device),
        )
        empty = torch.tensor([not any(each) for each in texts], device=sequence.device)
        sequence = torch.where(empty.view(-1, 1, 1), encoder.null_condition_emb, sequence)
        source = silence[:, :length].expand(len(texts), -1, -1)
        wanted = torch.ones(len(texts), length, channels, device=silence.device)
        return {"text": sequence, "context": torch.cat([source, wanted.to(source.dtype)], dim=-1)}

    def longest(self, config: AceStepConfig, assets: Assets) -> Condition:
        """All tokens of caption and lyrics, and one of timbre; the encoder looks at values."""
        channels, length = self.latent_shape(config, assets)
        width = assets["condition_encoder"].null_condition_emb.shape[-1]
        tokens = config.caption_length + config.lyrics_length + 1
        return {
            "text": torch.zeros(1, tokens, width),
            "context": torch.zeros(1, length, 2 * channels),
        }

    def null(self, config: AceStepConfig, assets: Assets, condition: Condition) -> Condition:
        """The null embedding, as long as the captions are."""
        del config
        text = condition["text"]
        embedding: Tensor = assets["condition_encoder"].null_condition_emb.to(text)
        return condition | {"text": embedding.expand_as(text)}

    def guide(self, module: nn.Module, guidance: float) -> Guide | None:
        """Adaptive projected guidance with a memory, Sadat et al. 2024; none of it for turbo."""
        config: Any = module.config
        if guidance <= 1 or config.is_turbo or config.model_version == "turbo":
            return None
        return partial(
            class_named(f"{_GUIDANCE}.normalized_guidance"),
            guidance_scale=guidance - 1,
            momentum_buffer=class_named(f"{_GUIDANCE}.MomentumBuffer")(momentum=-0.75),
            eta=0.0,
            norm_threshold=2.5,
            use_original_formulation=True,
            norm_dim=(-1,),
        )

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The network takes times 0 to 1 and channels last, and gives ``noise - clean``."""
        answer: Tensor = module(
            hidden_states=noisy.transpose(1, 2),
            timestep=times,
            timestep_r=times,
            encoder_hidden_states=condition["text"],
            context_latents=condition["context"][:, : noisy.shape[-1]],  # shorter ones too
            return_dict=False,
        )[0]
        return answer.transpose(1, 2)


def _prompts(
    config: AceStepConfig, assets: Assets, texts: Sequence[tuple[str, str]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Captions and lyrics in the pipeline's own templates: states and masks of both."""
    encoder = assets["text_encoder"]
    pipeline = class_named(AceStep.pipeline)(
        vae=assets["vae"],
        text_encoder=encoder,
        tokenizer=assets["tokenizer"],
        condition_encoder=assets["condition_encoder"],
        transformer=None,
        scheduler=None,
    )
    found: tuple[Tensor, Tensor, Tensor, Tensor] = pipeline.encode_prompt(
        prompt=[caption for caption, _ in texts],
        lyrics=[lyrics for _, lyrics in texts],
        device=encoder.device,
        vocal_language=config.language,
        audio_duration=float(config.seconds),
        max_text_length=config.caption_length,
        max_lyric_length=config.lyrics_length,
    )
    return found
