"""OptimizerSpec, ScheduleSpec and EmaSpec: how gradients become weights."""

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.section import Section

OptimizerName = Literal[
    "adamw", "adam", "adagrad", "adadelta", "adamax", "asgd", "nadam", "radam", "rmsprop", "sgd",
    "adafactor", "prodigy", "adamw_schedulefree", "sgd_schedulefree", "came",
    "stableadamw", "lion", "adan", "ranger", "soap", "ademamix", "dadaptation",
    "muon", "adamw_8bit", "paged_adamw_8bit", "lion_8bit", "ademamix_8bit",
]  # fmt: skip

HAVE_AVERAGE = ("adamw_schedulefree", "sgd_schedulefree")
"""Optimisers that keep two sets of weights themselves."""
FUSABLE = (
    "adamw", "adam", "adagrad", "adadelta", "adamax", "asgd", "nadam", "radam", "rmsprop", "sgd",
    "adafactor", "adamw_8bit", "lion_8bit", "ademamix_8bit",
)  # fmt: skip
"""Optimisers whose step of one weight asks nothing of the others."""

ScheduleName = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "sine"]


class OptimizerSpec(Section):
    """How gradients become changes of the weights."""

    name: OptimizerName = Field("adamw", description="Algorithm; the default is AdamW, 2019.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Peak step size; none: 1 where the optimiser finds it by itself, else 1e-3 "
        "from scratch, 1e-4 for adapters, 1e-5 for all weights of a base.",
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the gradient mean.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Decay of the squared-gradient mean.")
    epsilon: float = Field(1e-8, gt=0, le=1e-2, description="Added to the denominator.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay.")
    options: dict[str, float | int | bool | str] = Field(
        default_factory=dict, description="Further arguments of the optimiser's class."
    )
    max_grad_norm: float | None = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Gradients are clipped to this global norm; none: they are not.",
    )
    offload: bool = Field(
        False,
        description="Keep the state of the optimiser in the memory of the host, and step there.",
    )
    fused_backward: bool = Field(
        False,
        description="Step each weight as soon as its gradient is known, so that gradients are "
        "never all there; takes no clipping and no accumulation.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.offload and self.fused_backward:
            raise ValueError("optimizer.offload and optimizer.fused_backward exclude each other")
        if self.offload and (self.name in HAVE_AVERAGE or "paged" in self.name):
            raise ValueError(
                f"optimizer.offload: {self.name} keeps its state elsewhere by itself: drop it, or "
                "use adamw"
            )
        if self.fused_backward and self.name not in FUSABLE:
            raise ValueError(
                f"optimizer.fused_backward: {self.name} looks at all weights at once: use one of "
                f"{', '.join(FUSABLE)}"
            )
        if self.fused_backward and self.max_grad_norm is not None:
            raise ValueError(
                "optimizer.fused_backward steps before the norm of all gradients is known: set "
                "optimizer.max_grad_norm to null"
            )
        return self


class ScheduleSpec(Section):
    """How the learning rate moves over the run."""

    name: ScheduleName = Field(
        "cosine", description="Shape after the warm-up; all but constant and sine end at `end`."
    )
    warmup_steps: int = Field(
        0, ge=0, le=10_000_000, description="Steps of linear rise from 0 to the peak."
    )
    end: float = Field(0.0, ge=0, le=1, description="Last rate, as a share of the peak.")
    cycles: int = Field(1, ge=1, le=10_000, description="Rounds of cosine_with_restarts and sine.")
    power: float = Field(1.0, gt=0, le=10, description="Exponent of polynomial.")


class EmaSpec(Section):
    """Exponential moving average of what is trained, used for samples and for the result."""

    enabled: bool = Field(
        True,
        description="Keep an average beside the trained weights; schedule-free optimisers have "
        "one of their own, and take none.",
    )
    decay: float = Field(
        0.995,
        ge=0,
        lt=1,
        description="Share of the old average kept each step; `ramp` says how it gets there.",
    )
    ramp: Literal["early", "power", "none"] = Field(
        "early",
        description="Less is kept in the first steps, after n of them at most: early: "
        "(1 + n) / (10 + n); power: 1 - (1 + n / ramp_steps) ^ -ramp_power; none: decay at once.",
    )
    ramp_steps: float = Field(1.0, gt=0, le=1e7, description="power: updates that set its pace.")
    ramp_power: float = Field(0.75, gt=0, le=10, description="power: its exponent.")
    every: int = Field(1, ge=1, le=100_000, description="Steps between two updates.")
    device: Literal["accelerator", "cpu"] = Field(
        "accelerator", description="Where the average lies; cpu saves memory and costs time."
    )
