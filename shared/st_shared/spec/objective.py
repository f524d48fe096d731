"""ObjectiveSpec: how noise, timestep, target and loss are made."""

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.section import Section


class TimestepSpec(Section):
    """Which times are trained. A time is the share of the path to noise, 0 clean to 1 noise."""

    sigmoid_scale: float = Field(
        1.0, gt=0, le=20, description="logit_normal: spread of the normal before the sigmoid."
    )
    sigmoid_offset: float = Field(
        0.0, ge=-20, le=20, description="logit_normal: mean of the normal; more is noisier."
    )
    beta_alpha: float = Field(2.0, gt=0, le=100, description="beta: first shape parameter.")
    beta_beta: float = Field(2.0, gt=0, le=100, description="beta: second shape parameter.")
    cubic_weights: list[float] = Field(
        default_factory=lambda: [1.0, 1.0],
        min_length=2,
        max_length=64,
        description="cubic: densities at equal distances from time 0 to 1, joined by a spline.",
    )
    fixed: list[float] = Field(
        default_factory=list,
        max_length=4096,
        description="fixed: the times themselves, each in 0 to 1, drawn evenly.",
    )
    shift: float | Literal["dynamic"] = Field(
        1.0,
        description="Times move to shift * t / (1 + (shift - 1) * t), Esser et al. 2024, equation "
        "23; dynamic: by the number of latent tokens, as Flux does; 1: not at all.",
    )
    segmented: bool = Field(
        False,
        description="Each sample of a batch gets a time out of a part of its own of the "
        "distribution, all equally likely, so that every batch sees all of it.",
    )
    lowest: float = Field(0.0, ge=0, lt=1, description="Only times from here on; for stages.")
    highest: float = Field(1.0, gt=0, le=1, description="Only times up to here; for stages.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} must be less than highest {self.highest}")
        if self.shift != "dynamic" and not 0.01 <= self.shift <= 100:
            raise ValueError(f"shift {self.shift} must be between 0.01 and 100, or 'dynamic'")
        if any(not 0 <= time <= 1 for time in self.fixed):
            raise ValueError("fixed holds a time outside 0 to 1")
        if min(self.cubic_weights) < 0 or not sum(self.cubic_weights):
            raise ValueError("cubic_weights must be at least 0, and not all 0")
        return self


class LossSpec(Section):
    """How the distance from the target counts."""

    name: Literal["l2", "huber", "smooth_l1"] = Field(
        "l2", description="l2; huber: pseudo-Huber, 2c(sqrt(d² + c²) - c); smooth_l1: that over c."
    )
    huber_c: float = Field(0.1, gt=0, le=100, description="Distance where l2 turns into l1.")
    huber_schedule: Literal["constant", "exponential", "snr"] = Field(
        "constant",
        description="How c depends on the noise: not; from 1 (clean) to huber_c (noise); "
        "by the ratio of noise to signal.",
    )
    snr_gamma: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Min-SNR weighting, Hang et al. 2023, equation 8; 5 is usual; none: off.",
    )
    soft_min_snr: bool = Field(
        False,
        description="The smooth form of Min-SNR, Crowson et al. 2024: snr * gamma / (snr + gamma) "
        "instead of min(snr, gamma).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.soft_min_snr and not self.snr_gamma:
            raise ValueError("soft_min_snr is on: give snr_gamma, such as 5")
        return self


class NoiseSpec(Section):
    """What is done to the noise."""

    offset: float = Field(
        0.0, ge=0, le=1, description="Share of noise that is equal over a whole channel."
    )
    offset_probability: float = Field(
        0.25, ge=0, le=1, description="Share of samples that get the offset."
    )
    input_perturbation: float = Field(
        0.0, ge=0, le=1, description="More noise for the input alone; Ning et al. 2023."
    )
    input_perturbation_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="It falls in a line to 0 in so many steps."
    )


class ObjectiveSpec(Section):
    """How noise, timestep, target and loss are made."""

    name: Literal["flow_matching", "ddpm", "edm", "autoregressive"] | None = Field(
        None, description="Kind of objective; none: the one that the family was made with."
    )
    prediction: Literal["epsilon", "v"] | None = Field(
        None, description="What a ddpm model predicts; none: what its scheduler's file says."
    )
    timestep_sampling: (
        Literal["uniform", "logit_normal", "beta", "cubic", "fixed", "log_normal"] | None
    ) = Field(
        None,
        description="Distribution of training times, Esser et al. 2024, section 3; none: "
        "logit_normal for flow_matching, uniform for ddpm, log_normal for edm.",
    )
    timesteps: TimestepSpec = Field(default_factory=TimestepSpec)
    loss: LossSpec = Field(default_factory=LossSpec)
    noise: NoiseSpec = Field(default_factory=NoiseSpec)
    caption_dropout: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of samples trained without caption, for classifier-free guidance.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.timestep_sampling == "fixed" and not self.timesteps.fixed:
            raise ValueError("timestep_sampling is fixed: give the times in timesteps.fixed")
        return self
