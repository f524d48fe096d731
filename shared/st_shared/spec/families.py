"""The catalogue of model families: names, media and the options that each understands.

The trainer's registry holds the code of a family; a test keeps the two lists equal, so that a
job file can be checked in full before a slot is taken, without importing torch.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from st_shared.media import Media
from st_shared.spec.section import Section

MAX_TOKENS = 4096
"""Most patches of an image: the cost of attention grows with their square."""


class PixelDitConfig(Section):
    """Size of a ``pixel_dit``: a caption-conditioned diffusion transformer on pixels."""

    image_size: int = Field(8, ge=4, le=256, description="Height and width of an image, pixels.")
    channels: Literal[1, 3] = Field(1, description="1 for grey, 3 for RGB.")
    patch_size: int = Field(1, ge=1, le=32, description="Height and width of a patch, pixels.")
    width: int = Field(96, ge=16, le=2048, description="Channels of a token; a multiple of 4.")
    depth: int = Field(5, ge=1, le=48, description="Transformer blocks.")
    heads: int = Field(3, ge=1, le=32, description="Attention heads; must divide width.")
    caption_length: int = Field(16, ge=1, le=256, description="Words of a caption that are read.")
    vocabulary_size: int = Field(
        256,
        ge=4,
        le=65_536,
        description="Entries of the vocabulary: 3 special ones and the most frequent words.",
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
            )
        tokens = (self.image_size // self.patch_size) ** 2
        if tokens > MAX_TOKENS:
            raise ValueError(
                f"{tokens} patches an image are more than {MAX_TOKENS}: raise patch_size or lower "
                "image_size"
            )
        return self


class ImageConfig(Section):
    """Options of a family that starts from pretrained weights and draws images."""

    resolution: int = Field(
        512, ge=16, le=4096, multiple_of=8, description="Height and width of an image, pixels."
    )


class SdxlConfig(ImageConfig):
    """Options of ``sdxl``."""

    resolution: int = Field(
        1024, ge=16, le=4096, multiple_of=8, description="Height and width of an image, pixels."
    )


class FluxConfig(ImageConfig):
    """Options of ``flux``."""

    resolution: int = Field(
        512, ge=16, le=4096, multiple_of=16, description="Height and width of an image, pixels."
    )

    caption_length: int = Field(
        512, ge=8, le=512, description="Tokens of a caption that T5 reads; schnell: 256."
    )
    training_guidance: float = Field(
        1.0, ge=0, le=50, description="Guidance that a distilled model is told in training."
    )


class KontextConfig(FluxConfig):
    """Options of ``kontext``."""

    resolution: int = Field(
        1024, ge=16, le=4096, multiple_of=16, description="Height and width of an image, pixels."
    )
    reference_resolution: int | None = Field(
        None,
        ge=16,
        le=4096,
        multiple_of=16,
        description="Height and width of a square reference, pixels; others have about its area; "
        "none: `resolution`.",
    )


class PixartConfig(ImageConfig):
    """Options of ``pixart``."""

    resolution: int = Field(
        1024, ge=16, le=4096, multiple_of=16, description="Height and width of an image, pixels."
    )
    caption_length: int = Field(
        300, ge=8, le=512, description="Tokens of a caption that T5 reads; PixArt-alpha: 120."
    )


class Sd3Config(ImageConfig):
    """Options of ``sd3``."""

    resolution: int = Field(
        1024, ge=16, le=4096, multiple_of=16, description="Height and width of an image, pixels."
    )
    caption_length: int = Field(
        256, ge=8, le=512, description="Tokens of a caption that T5 reads; CLIP reads 77."
    )


class WanConfig(Section):
    """Options of ``wan`` and ``wan_i2v``."""

    height: int = Field(480, ge=16, le=4096, multiple_of=16, description="Height, pixels.")
    width: int = Field(832, ge=16, le=4096, multiple_of=16, description="Width, pixels.")
    frames: int = Field(
        81, ge=1, le=1025, description="Frames of a sample: 4k + 1; with 1, images are read too."
    )
    frame_rate: float = Field(
        16.0, gt=0, le=240, description="Frames a second; videos of other rates are resampled."
    )
    caption_length: int = Field(512, ge=8, le=512, description="Tokens of a caption.")

    @model_validator(mode="after")
    def _whole_latent_frames(self) -> Self:
        if self.frames % 4 != 1:
            nearest = self.frames // 4 * 4 + 1
            raise ValueError(f"frames {self.frames} must be 4k + 1, such as {nearest}")
        return self


class AceStepConfig(Section):
    """Options of ``ace_step``."""

    seconds: int = Field(30, ge=1, le=600, description="Length of a sample.")
    sample_rate: int = Field(
        48_000, ge=8, le=192_000, description="Values a second of sound, as the VAE has them."
    )
    language: str = Field(
        "en", pattern=r"^[a-z]{2,3}$", description="Language of the lyrics, an ISO 639 code."
    )
    caption_length: int = Field(256, ge=8, le=1024, description="Tokens of a caption.")
    lyrics_length: int = Field(2048, ge=8, le=8192, description="Tokens of the lyrics.")


Objective = Literal["flow_matching", "ddpm", "edm", "autoregressive"]


@dataclass(frozen=True)
class Family:
    """What is known of a family without its code."""

    name: str
    media: Media
    summary: str
    config: type[Section]
    """The model that validates ``model.config``."""
    needs_base: bool
    """Whether ``model.base`` (pretrained weights to start from) must be given."""
    objectives: tuple[Objective, ...] = ("flow_matching",)
    """What it can be trained with; the first is the default."""
    alignment: int | None = None
    """Sides of its pictures may be any multiple of so many pixels; None: all have one size."""
    frame_step: int | None = None
    """Its videos may have any multiple of so many frames and one more; None: all have as many."""
    any_length: bool = False
    """Whether its sounds may be shorter than ``config.seconds``."""
    has_controlnet: bool = False
    """Whether a ControlNet of it can be trained."""
    kohya_lora: bool = False
    """Whether ``adapter.layout`` may be kohya."""
    from_picture: bool = False
    """Whether its samples go on from a picture: their first frame, or one that is given."""
    text_encoder_lora: bool = False
    """Whether ``adapter.text_encoder`` may be asked for."""
    edits: bool = False
    """Whether it makes its samples out of others: each comes with a reference, a picture."""


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="pixel_dit",
            media="image",
            summary="small caption-conditioned transformer on pixels, trained from scratch",
            config=PixelDitConfig,
            needs_base=False,
        ),
        Family(
            name="sd1",
            media="image",
            summary="Stable Diffusion 1: UNet on latents, CLIP, 0.9B",
            config=ImageConfig,
            needs_base=True,
            objectives=("ddpm",),
            alignment=8,
            has_controlnet=True,
            kohya_lora=True,
            text_encoder_lora=True,
        ),
        Family(
            name="sdxl",
            media="image",
            summary="Stable Diffusion XL: UNet on latents, two CLIPs, sizes as a condition, 3.5B",
            config=SdxlConfig,
            needs_base=True,
            objectives=("ddpm",),
            alignment=8,
            has_controlnet=True,
            kohya_lora=True,
            text_encoder_lora=True,
        ),
        Family(
            name="flux",
            media="image",
            summary="Flux.1 dev and schnell: transformer on packed latents, T5 and CLIP, 12B",
            config=FluxConfig,
            needs_base=True,
            alignment=16,
            text_encoder_lora=True,
            has_controlnet=True,
            kohya_lora=True,
        ),
        Family(
            name="kontext",
            media="image",
            summary="Flux.1 Kontext: edits images by instruction, Flux.1 with references, 12B",
            config=KontextConfig,
            needs_base=True,
            alignment=16,
            text_encoder_lora=True,
            kohya_lora=True,
            edits=True,
        ),
        Family(
            name="pixart",
            media="image",
            summary="PixArt-Sigma and -alpha: transformer on latents, T5, 0.6B",
            config=PixartConfig,
            needs_base=True,
            objectives=("ddpm",),
            alignment=16,
        ),
        Family(
            name="sd3",
            media="image",
            summary="Stable Diffusion 3 and 3.5: transformer on latents, two CLIPs and T5, 2B-8B",
            config=Sd3Config,
            needs_base=True,
            alignment=16,
            text_encoder_lora=True,
            has_controlnet=True,
            kohya_lora=True,
        ),
        Family(
            name="wan",
            media="video",
            summary="Wan 2.1 text to video: transformer on video latents, UMT5, 1.3B and 14B",
            config=WanConfig,
            needs_base=True,
            alignment=16,
            frame_step=4,
        ),
        Family(
            name="wan_i2v",
            media="video",
            summary="Wan 2.1 image to video: goes on from a picture, seen by CLIP and VAE, 14B",
            config=WanConfig,
            needs_base=True,
            alignment=16,
            frame_step=4,
            from_picture=True,
        ),
        Family(
            name="ace_step",
            media="audio",
            summary="ACE-Step 1.5: music from captions and lyrics, transformer on 25 Hz latents",
            config=AceStepConfig,
            needs_base=True,
            any_length=True,
        ),
    )
}


class FamilyConfigError(ValueError):
    """The options of a family are wrong; carries the mistakes, so that each keeps its field."""

    def __init__(
        self, config: type[BaseModel], error: ValidationError, document: dict[str, Any]
    ) -> None:
        super().__init__(str(error))
        self.config = config
        self.error = error
        self.document = document


class ModelSpec(Section):
    """What is trained: a family, its options, and the weights it starts from."""

    family: str = Field(description="Model family; `st-train families` lists them.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="Options of the family; see its table in the docs."
    )
    base: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Weights to start from: a folder in the layout of Diffusers, the id of such a "
        "repository on Hugging Face, or the result of an earlier run; none: from scratch.",
    )
    base_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Checksum that the base file must have."
    )

    @model_validator(mode="after")
    def _known_family(self) -> Self:
        family = FAMILIES.get(self.family)
        if family is None:
            known = ", ".join(sorted(FAMILIES))
            raise ValueError(f"unknown family {self.family!r}; known families: {known}")
        try:
            family.config.model_validate(self.config)
        except ValidationError as error:
            raise FamilyConfigError(family.config, error, self.config) from error
        if family.needs_base and self.base_sha256:
            raise ValueError(
                f"base_sha256 is the checksum of one file, but family {self.family!r} starts from "
                "a folder: drop it"
            )
        if family.needs_base and self.base is None:
            raise ValueError(f"family {self.family!r} needs 'base': the weights to start from")
        return self
