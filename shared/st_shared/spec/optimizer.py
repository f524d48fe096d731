"""OptimizerSpec, ScheduleSpec and EmaSpec: how gradients become weights."""

from typing import Literal

from pydantic import Field

from st_shared.spec.section import Section

OptimizerName = Literal[
    "adamw", "adam", "adagrad", "adadelta", "adamax", "asgd", "nadam", "radam", "rmsprop", "sgd",
    "adafactor", "prodigy", "adamw_schedulefree", "sgd_schedulefree", "came",
    "stableadamw", "lion", "adan", "ranger", "soap", "ademamix", "dadaptation",
    "muon",
]  # fmt: skip

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
    max_grad_norm: float = Field(
        1.0, gt=0, le=1e6, description="Gradients are clipped to this global norm."
    )


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
