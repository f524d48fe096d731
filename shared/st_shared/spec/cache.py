"""What the results of encoders are kept for, so that a run computes each of them once."""

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.section import Section

CacheMode = Literal["auto", "before", "on_demand", "off"]


class CacheSpec(Section):
    """What autoencoders and text encoders make of samples and captions is kept on disk.

    Entries are named by their content: what was encoded, the weights of the encoders, and how. So
    another caption, crop, size or VAE is another entry, and a folder that was moved is the same.
    """

    latents: CacheMode = Field(
        "auto",
        description="What the autoencoder makes of samples, and of the pictures that a ControlNet "
        "reads. before: all of it ahead of the first step, then the autoencoder leaves memory; "
        "on_demand: when a sample is first seen; off: anew in each step; auto: before, where the "
        "run sees each sample about once or more, else on_demand.",
    )
    images: CacheMode = Field(
        "auto",
        description="The same of the pictures that videos go on from, and the image encoder that "
        "sees them; their latents are kept as `latents` says.",
    )
    text: CacheMode = Field(
        "auto",
        description="The same of captions and their text encoders; auto: off where they are "
        "trained or captions are shuffled.",
    )
    at_once: int = Field(
        1,
        ge=1,
        le=1024,
        description="Samples or captions that an encoder takes together, cached or not. With 1 "
        "the result does not depend on the others; small models on GPUs are faster with more.",
    )
    share: str | None = Field(
        None,
        pattern=r"^s3://[^/\s]+(/\S*)?$",
        max_length=1024,
        description="`s3://bucket/prefix` where entries are fetched from and kept for other "
        "machines; whoever may write there decides what is learned.",
    )
    endpoint_url: str | None = Field(
        None,
        pattern=r"^https?://\S{1,2000}$",
        description="Server of that bucket where it is not AWS; none: as AWS's own tools find it.",
    )
    max_gb: float = Field(
        200.0,
        gt=0,
        le=1_000_000,
        description="Most that the folder of the cache may hold, GB; what was not used for longest "
        "goes first. What does not fit is encoded each time it is seen.",
    )

    @model_validator(mode="after")
    def _has_a_bucket(self) -> Self:
        if self.endpoint_url and not self.share:
            raise ValueError("endpoint_url is the server of share: give that, or drop it")
        return self
