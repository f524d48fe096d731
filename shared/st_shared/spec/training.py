"""TrainingSpec: everything that decides what a training run computes."""

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.dataset import DatasetSpec
from st_shared.spec.families import ModelSpec
from st_shared.spec.section import Section


class OptimizerSpec(Section):
    """How gradients become changes of the weights."""

    name: Literal["adamw"] = Field("adamw", description="AdamW, Loshchilov & Hutter 2019.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Peak step size.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the gradient mean.")
    beta2: float = Field(0.99, ge=0, lt=1, description="Decay of the squared-gradient mean.")
    epsilon: float = Field(1e-8, gt=0, le=1e-2, description="Added to the denominator.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay.")
    max_grad_norm: float = Field(
        1.0, gt=0, le=1e6, description="Gradients are clipped to this global norm."
    )


class ScheduleSpec(Section):
    """How the learning rate moves over the run."""

    name: Literal["constant", "cosine", "linear"] = Field(
        "cosine", description="Shape after the warm-up; cosine and linear end at 0."
    )
    warmup_steps: int = Field(
        0, ge=0, le=10_000_000, description="Steps of linear rise from 0 to the peak."
    )


class ObjectiveSpec(Section):
    """How noise, timestep and target are made."""

    name: Literal["flow_matching"] = Field(
        "flow_matching", description="Rectified flow, Liu et al. 2022; Lipman et al. 2023."
    )
    timestep_sampling: Literal["uniform", "logit_normal"] = Field(
        "logit_normal", description="Distribution of training times; Esser et al. 2024, section 3."
    )
    caption_dropout: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of samples trained without caption, for classifier-free guidance.",
    )


class EmaSpec(Section):
    """Exponential moving average of the weights, used for samples and for the result."""

    enabled: bool = Field(True, description="Keep an average beside the trained weights.")
    decay: float = Field(
        0.995,
        ge=0,
        lt=1,
        description="Share of the old average kept each step; less in the first steps: after n "
        "of them at most (1 + n) / (10 + n).",
    )


class CheckpointSpec(Section):
    """When the whole state is written, so that an interrupted run goes on bit-exactly."""

    every: int = Field(200, ge=1, le=10_000_000, description="Steps between checkpoints.")
    keep_last: int = Field(2, ge=1, le=1000, description="Newest checkpoints kept on disk.")


class ValidationSpec(Section):
    """Which pictures are drawn while training, and how."""

    prompts: list[str] = Field(
        default_factory=list, max_length=256, description="Captions to draw; none: no samples."
    )
    every: int = Field(200, ge=1, le=10_000_000, description="Steps between sample grids.")
    columns: int | None = Field(
        None, ge=1, le=32, description="Pictures in a row of the grid; none: near square."
    )
    scale: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Enlargement of each picture in the grid; none: to about 128 pixels.",
    )
    sampler_steps: int = Field(24, ge=1, le=1000, description="Euler steps from noise to image.")
    guidance: float = Field(
        2.0, ge=0, le=50, description="Classifier-free guidance, Ho & Salimans 2022; 1: none."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the starting noise.")


class TrainingSpec(Section):
    """Everything that decides what a training run computes.

    Two runs of the same specification on the same hardware end with the same weights.
    """

    model: ModelSpec
    datasets: list[DatasetSpec] = Field(
        max_length=64, description="Sources of samples; all are mixed."
    )
    steps: int = Field(
        ge=0,
        le=10_000_000,
        description="Optimiser steps of the whole run; 0 only validates `model.base`.",
    )
    batch_size: int = Field(16, ge=1, le=65_536, description="Samples in one optimiser step.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of initial weights, order and noise.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Arithmetic of the forward pass; bf16 is slow on most CPUs."
    )
    log_every: int = Field(10, ge=1, le=100_000, description="Steps between metric points.")
    objective: ObjectiveSpec = Field(default_factory=ObjectiveSpec)
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec)
    ema: EmaSpec = Field(default_factory=EmaSpec)
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    validation: ValidationSpec = Field(default_factory=ValidationSpec)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps == 0 and self.model.base is None:
            raise ValueError("steps is 0, which only validates: give model.base, or steps >= 1")
        if self.steps == 0 and not self.validation.prompts:
            raise ValueError("steps is 0, which only validates: give validation.prompts to draw")
        if self.steps and not self.datasets:
            raise ValueError("datasets is empty: give at least one, with its name or its path")
        if self.steps and self.schedule.warmup_steps > self.steps:
            raise ValueError(
                f"schedule.warmup_steps {self.schedule.warmup_steps} is more than steps "
                f"{self.steps}: lower it"
            )
        return self
