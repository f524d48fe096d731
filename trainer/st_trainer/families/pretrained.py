"""Families that start from pretrained weights: parts by name, a VAE, LoRA targets.

A family names its parts; what is not particular to it happens here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from st_shared.spec.families import ImageConfig
from st_shared.spec.section import Section
from st_trainer.data.medium import Shape
from st_trainer.families.components import load_components
from st_trainer.families.family import MEAN, STD, VALUE, Assets, Denoiser, Encoding, FamilyCode
from st_trainer.families.kohya_names import Names
from st_trainer.families.parts import Parts
from st_trainer.share import Share

ConfigT = TypeVar("ConfigT", bound=Section)

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Ends of the names of attention's projections, in nearly every model of Diffusers."""


class Pretrained(FamilyCode[ConfigT]):
    """A family whose parts lie in a folder of Diffusers' layout.

    Shapes are those of an image VAE and an ``ImageConfig``; a family of another kind gives its own.
    """

    components: ClassVar[Mapping[str, str]]
    """Class of each part by the name of its subfolder, such as ``diffusers.AutoencoderKL``."""
    denoiser: ClassVar[str] = "transformer"
    """The part that is trained; also the prefix of its keys in LoRA files of Diffusers."""
    pipeline: ClassVar[str]
    """Diffusers' own pipeline, which users of the result will run."""
    lora_presets: ClassVar[Mapping[str, tuple[str, ...]]] = {"default": ATTENTION}
    """Ends of the names of modules that a LoRA adapts, by preset."""
    comfy_reads_diffusers: ClassVar[bool] = False
    """Whether ComfyUI reads the keys of Diffusers' layout; then a file for it has them, without
    alphas, which Diffusers' loaders of such families refuse: the matrices hold the scale."""
    comfy_prefix: ClassVar[str] = "diffusion_model"
    """What ComfyUI has before the names of modules in a LoRA file."""
    comfy_renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Regular expressions and replacements that turn our names of modules into ComfyUI's."""
    comfy_alphas: ClassVar[bool] = True
    """Whether files of that layout hold alphas; else the scale is multiplied into the matrices."""
    kohya_prefix: ClassVar[str | None] = None
    """The same where ComfyUI wants names in Kohya's form, such as ``lora_unet``."""
    kohya_modules: ClassVar[Names] = {}
    """Kohya's names of modules where it fuses projections."""
    encoders: ClassVar[tuple[str, ...]] = ()
    """Parts beside text encoders that captions pass through."""
    text_options: ClassVar[tuple[str, ...]] = ("caption_length",)
    """Options of the family on which the tensors of a caption depend."""
    control_is_encoded: ClassVar[bool] = False
    """Whether a ControlNet reads latents of pictures, not pictures."""
    controlnet: ClassVar[str | None] = None
    """Class of its ControlNet, where it has one."""
    text_encoders: ClassVar[Mapping[str, str]] = {}
    """Text encoders that a LoRA may adapt, and what Kohya has before names of their modules."""

    def load(self, base: str, config: ConfigT, dtype: torch.dtype) -> Denoiser:
        """The model at ``base``, frozen.

        Raises:
            BadSpecError: a part is missing, or does not fit its class.
        """
        parts = load_components(base, self.components, dtype)
        module: nn.Module = parts.pop(self.denoiser)

        def again(name: str) -> Any:
            return load_components(base, {name: self.components[name]}, dtype)[name]

        return Denoiser(self, config, Parts(parts, again), module)

    def sample_shape(self, config: ConfigT) -> Shape:
        """A square RGB image."""
        side = cast("ImageConfig", config).resolution
        return 3, side, side

    def latent_shape(self, config: ConfigT, assets: Assets) -> Shape:
        """One image behind the VAE."""
        vae = config_of(assets, "vae")
        side = self.sample_shape(config)[-1] // 2 ** (len(vae.block_out_channels) - 1)
        return vae.latent_channels, side, side

    def encoded(self, assets: Assets, samples: Tensor) -> Encoding:
        """Mean and spread of the VAE's posterior, or the value of an autoencoder without one."""
        vae = assets["vae"]
        found = vae.encode(samples.to(vae.device, vae.dtype))
        if not hasattr(found, "latent_dist"):
            return {VALUE: found.latent}
        return {MEAN: found.latent_dist.mean, STD: found.latent_dist.std}

    def drawn(
        self, assets: Assets, encoding: Encoding, generator: torch.Generator, share: Share
    ) -> Tensor:
        """A draw from the VAE's posterior, normalised, in fp32."""
        if VALUE in encoding:
            latents = encoding[VALUE]
        else:
            mean = encoding[MEAN]
            latents = mean + encoding[STD] * share.normal(mean, generator)
        return normalised(latents.float(), config_of(assets, "vae"))

    def controlnet_copy(self, module: nn.Module, assets: Assets) -> nn.Module:
        """A new ControlNet beside ``module``, which changes nothing yet.

        Raises:
            NotImplementedError: the family has none.
        """
        del module, assets
        raise NotImplementedError(self.name)

    def controlnet_idle(self, controlnet: nn.Module) -> Sequence[nn.Module]:
        """Parts of a ControlNet on which nothing depends that is used of it."""
        del controlnet
        return ()

    def samples(self, assets: Assets, latents: Tensor) -> Tensor:
        """What the VAE makes of latents."""
        vae = assets["vae"]
        values = denormalised(latents.float(), vae.config).to(vae.device, vae.dtype)
        decoded: Tensor = vae.decode(values, return_dict=False)[0]
        return decoded


def config_of(assets: Assets, name: str) -> Any:
    """The options of a part, whether it is in memory or was set down."""
    return assets.config(name) if isinstance(assets, Parts) else assets[name].config


def picture_latents(assets: Assets, pictures: Tensor) -> Tensor:
    """The mean of the VAE's posterior of pictures with values 0 to 1, normalised, in fp32."""
    vae = assets["vae"]
    posterior = vae.encode((2 * pictures - 1).to(vae.device, vae.dtype)).latent_dist
    return normalised(posterior.mean.float(), vae.config)


def normalised(latents: Tensor, config: Any) -> Tensor:
    """Latents of about unit spread: ``(z - mean) / std`` by channel, or ``(z - shift) * scale``."""
    mean, scale = _moments(latents, config)
    return (latents - mean) * scale


def denormalised(latents: Tensor, config: Any) -> Tensor:
    """The inverse of ``normalised``."""
    mean, scale = _moments(latents, config)
    return latents / scale + mean


def _moments(latents: Tensor, config: Any) -> tuple[Tensor | float, Tensor | float]:
    """Mean and inverse spread, by channel where the VAE's file has them so."""
    means = config.get("latents_mean")
    if means is None:
        return config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    shape = (1, -1, *[1] * (latents.dim() - 2))
    spread = latents.new_tensor(config["latents_std"]).view(shape)
    return latents.new_tensor(means).view(shape), 1 / spread
