"""DistributedSpec: how several processes share one training."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from st_shared.spec.families import FAMILIES
from st_shared.spec.section import Section

if TYPE_CHECKING:
    from st_shared.spec.training import TrainingSpec

Strategy = Literal["ddp", "fsdp2", "deepspeed"]
Place = Literal["none", "cpu"]

_OWN: dict[Strategy, frozenset[str]] = {
    "ddp": frozenset(),
    "fsdp2": frozenset({"reshard_after_forward", "offload_parameters"}),
    "deepspeed": frozenset({"zero_stage", "offload_optimizer", "offload_parameters", "options"}),
}
"""Keys that mean something to one strategy and not to all."""
_EVERYWHERE = frozenset({"strategy", "processes", "context_parallel", "context_parallel_kind"})

ELEMENTWISE = frozenset(
    {"adamw", "adam", "adagrad", "adadelta", "adamax", "asgd", "nadam", "radam", "rmsprop", "sgd"}
)
"""Optimisers that treat each number by itself, so that it may lie in any process."""


class DistributedSpec(Section):
    """How several processes share one training."""

    strategy: Strategy = Field(
        "ddp",
        description="ddp: each holds the whole model; fsdp2: weights, gradients and the "
        "optimiser's state are spread over all; deepspeed: what `zero_stage` says is spread.",
    )
    processes: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Processes that must take part, of all nodes together; none: however many "
        "are started.",
    )
    zero_stage: Literal[1, 2, 3] = Field(
        2,
        description="deepspeed: 1 spreads the optimiser's state, 2 gradients too, 3 weights too.",
    )
    reshard_after_forward: bool = Field(
        True,
        description="fsdp2: give a block's weights back between its forward and its backward "
        "pass; false: faster, with more memory.",
    )
    offload_optimizer: Place = Field(
        "none", description="deepspeed: where the optimiser's state lies and is computed."
    )
    offload_parameters: Place = Field(
        "none",
        description="fsdp2: where weights, gradients and the optimiser's state lie between uses; "
        "deepspeed with zero_stage 3: where weights do.",
    )
    context_parallel: int = Field(
        1,
        ge=1,
        le=1024,
        description="Processes that share the tokens of one sample; they take the same samples.",
    )
    context_parallel_kind: Literal["ulysses", "ring"] = Field(
        "ulysses",
        description="ulysses exchanges heads, which `context_parallel` must divide; ring passes "
        "keys and values on.",
    )
    options: dict[str, float | int | bool | str] = Field(
        default_factory=dict,
        max_length=64,
        description="deepspeed: further keys of `zero_optimization`.",
    )

    @field_validator("offload_optimizer", "offload_parameters", mode="before")
    @classmethod
    def _no_disk(cls, value: object) -> object:
        if isinstance(value, str) and value in {"disk", "nvme"}:
            raise ValueError(
                f"{value} is for frozen weights, of which each step reads only: set cpu, or, with "
                "strategy ddp, training.memory.offload to {level: block, to: disk}"
            )
        return value

    @property
    def spreads_weights(self) -> bool:
        """Whether no process holds all weights."""
        return self.strategy == "fsdp2" or (self.strategy == "deepspeed" and self.zero_stage == 3)

    def misfit(self, training: "TrainingSpec") -> str | None:
        """Why the strategy cannot carry ``training`` out, and what to change; None: it can."""
        usual, keys = DistributedSpec(), type(self).model_fields
        given = {key for key in keys if getattr(self, key) != getattr(usual, key)}
        unused = sorted(given - _EVERYWHERE - _OWN[self.strategy])
        if unused:
            return f"{unused[0]} means nothing for strategy {self.strategy}: drop it"
        if training.checkpoint.sharded and self.strategy == "ddp":
            return (
                "with strategy ddp each process holds everything, so that one writes it: drop "
                "checkpoint.sharded, or use strategy fsdp2 or deepspeed"
            )
        offloads = self.offload_parameters != "none" and self.strategy == "deepspeed"
        if offloads and self.zero_stage != 3:
            return "offload_parameters needs zero_stage 3, which alone spreads weights"
        if offloads and self.offload_optimizer == "none":
            return "offload_parameters needs offload_optimizer too: set it to cpu"
        spreads = self._spreads(training) if self.strategy != "ddp" else None
        return spreads or self._shares(training)

    def _spreads(self, training: "TrainingSpec") -> str | None:
        """The same, of what asks for whole tensors where they are cut apart."""
        optimizer, memory = training.optimizer, training.memory
        if optimizer.name not in ELEMENTWISE:
            return (
                f"strategy {self.strategy} cuts tensors apart, and optimizer.name "
                f"{optimizer.name} needs them whole: use strategy ddp, or one of "
                f"{', '.join(sorted(ELEMENTWISE))}"
            )
        whole = {
            "precision fp16": training.precision == "fp16",
            "memory.quantization.format": memory.quantization.format,
            "memory.offload.level": memory.offload.level,
            "optimizer.offload": optimizer.offload,
            "optimizer.fused_backward": optimizer.fused_backward,
            "speed.compile": training.speed.compile and self.strategy == "deepspeed",
        }
        asked = next((key for key, is_given in whole.items() if is_given), None)
        if asked is None:
            return None
        return (
            f"{asked} does not go with strategy {self.strategy}: drop it, or use strategy ddp "
            "(distributed.offload_parameters and offload_optimizer save memory too)"
        )

    def _shares(self, training: "TrainingSpec") -> str | None:
        """The same, of what needs a model or all tokens in one place."""
        shares_tokens = self.context_parallel > 1
        if training.adapter.text_encoder and (self.spreads_weights or shares_tokens):
            return (
                "adapter.text_encoder needs the encoders whole in each process: use strategy ddp "
                "without context_parallel, or deepspeed with zero_stage 1 or 2"
            )
        sweep = training.validation.sweep
        if self.spreads_weights and sweep and sweep.adapters:
            return (
                "validation.sweep.adapters are added to whole weights, and here no process has "
                "them: drop those, or use strategy ddp, or deepspeed with zero_stage 1 or 2"
            )
        if shares_tokens and training.adapter_kind == "controlnet":
            return "context_parallel does not cut the pictures of a ControlNet: drop it"
        if shares_tokens and FAMILIES[training.model.family].edits:
            return "context_parallel does not cut the tokens of references: drop it"
        if shares_tokens and training.speed.compile:
            return "context_parallel does not go with speed.compile: drop one"
        return None
