"""TrainingSpec: everything that decides what a training run computes."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.adapter import AdapterKind, AdapterSpec
from st_shared.spec.buckets import LENGTHS, BucketSpec
from st_shared.spec.cache import CacheSpec
from st_shared.spec.dataset import DatasetSpec, FilterSpec
from st_shared.spec.distributed import DistributedSpec
from st_shared.spec.families import FAMILIES, ModelSpec
from st_shared.spec.memory import MemorySpec, SpeedSpec
from st_shared.spec.objective import ObjectiveSpec
from st_shared.spec.optimizer import EmaSpec, OptimizerSpec, ScheduleSpec
from st_shared.spec.publishing import PublishSpec
from st_shared.spec.scripts import HooksSpec
from st_shared.spec.section import Section
from st_shared.spec.trackers import TrackerSpec
from st_shared.spec.validation import ValidationSpec, size_of


class CheckpointSpec(Section):
    """When the whole state is written, so that an interrupted run goes on bit-exactly."""

    every: int = Field(200, ge=1, le=10_000_000, description="Steps between checkpoints.")
    keep_last: int = Field(2, ge=1, le=1000, description="Newest checkpoints kept on disk.")
    keep_best: int = Field(
        0,
        ge=0,
        le=1000,
        description="Also kept: those with the least mean loss since the one before.",
    )
    keep_every: int | None = Field(
        None, ge=1, le=10_000_000, description="Also kept: every multiple of so many steps."
    )
    background: bool = Field(
        True, description="Write while training goes on, from a copy in host memory."
    )
    sharded: bool | None = Field(
        None,
        description="Where the optimiser's state is spread: each process writes its own part; "
        "none: for full training, where all see the folder of the run.",
    )


class TrainingSpec(Section):
    """Everything that decides what a training run computes.

    Two runs of the same specification on the same hardware end with the same weights.
    """

    model: ModelSpec
    datasets: list[DatasetSpec] = Field(
        max_length=64, description="Sources of samples; all are mixed."
    )
    steps: int = Field(
        1000,
        ge=0,
        le=10_000_000,
        description="Optimiser steps of the whole run; 0 only validates `model.base`.",
    )
    batch_size: int = Field(
        4, ge=1, le=65_536, description="Samples that each process takes in one optimiser step."
    )
    accumulation: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Batches whose gradients are added up for one optimiser step: learns what "
        "one batch as large as all of them learns, in the memory of one.",
    )
    buckets: BucketSpec = Field(default_factory=BucketSpec)
    cache: CacheSpec = Field(default_factory=CacheSpec)
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of initial weights, order and noise.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="Arithmetic of the forward pass, and type of frozen weights; bf16 is slow on "
        "most CPUs, fp16 is for accelerators without bf16.",
    )
    log_every: int = Field(10, ge=1, le=100_000, description="Steps between metric points.")
    adapter: AdapterSpec = Field(default_factory=AdapterSpec)
    objective: ObjectiveSpec = Field(default_factory=ObjectiveSpec)
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    memory: MemorySpec = Field(default_factory=MemorySpec)
    speed: SpeedSpec = Field(default_factory=SpeedSpec)
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec)
    ema: EmaSpec = Field(default_factory=EmaSpec)
    distributed: DistributedSpec = Field(default_factory=DistributedSpec)
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    validation: ValidationSpec = Field(default_factory=ValidationSpec)
    hooks: HooksSpec = Field(default_factory=HooksSpec)
    trackers: list[TrackerSpec] = Field(
        default_factory=list, max_length=8, description="Where metrics and samples are sent too."
    )
    publish: list[PublishSpec] = Field(
        default_factory=list, max_length=8, description="Where the result is published."
    )

    @property
    def adapter_kind(self) -> AdapterKind:
        """What is trained, with the default of the family filled in."""
        needs_base = FAMILIES[self.model.family].needs_base
        return self.adapter.kind or ("lora" if needs_base else "full")

    def scripts(self) -> Iterator[str]:
        """Fields that hold shell commands."""
        if self.validation.script is not None:
            yield "validation.script"
        yield from (f"hooks.{name}" for name, _ in self.hooks.given())

    def bucket_step(self, side: int) -> int | None:
        """Pixels between the sides of buckets around ``side``; None: all have one size."""
        alignment = FAMILIES[self.model.family].alignment
        if alignment is None or not self.buckets.enabled:
            return None
        return self.buckets.step or max(side // 16 // alignment, 1) * alignment

    @model_validator(mode="after")
    def _buckets_fit_the_family(self) -> Self:
        family, step = FAMILIES[self.model.family], self.buckets.step
        for key in self.buckets.unused(family):
            raise ValueError(
                f"buckets.{key} means nothing for family {family.name}, whose samples have one "
                f"{'length' if key in LENGTHS else 'size'}: drop it"
            )
        if step and family.alignment and step % family.alignment:
            raise ValueError(
                f"buckets.step {step} must be a multiple of {family.alignment} for family "
                f"{family.name}"
            )
        for number, dataset in enumerate(self.datasets):
            key = "columns.box" if dataset.is_table else "box_suffix"
            if self.buckets.crop == "face" and not dataset.has_boxes:
                raise ValueError(
                    f"buckets.crop face keeps boxes, of which datasets.{number} tells none, and "
                    f"nothing here looks for faces: give {key}, or another crop"
                )
            if dataset.has_boxes and self.buckets.crop != "face":
                raise ValueError(
                    f"datasets.{number}.{key} means nothing without buckets.crop face: add it, or "
                    "drop the key"
                )
        return self

    @model_validator(mode="after")
    def _fits_the_family(self) -> Self:
        family = FAMILIES[self.model.family]
        if self.objective.name and self.objective.name not in family.objectives:
            known = " or ".join(family.objectives)
            raise ValueError(
                f"objective.name is {self.objective.name}, but family {family.name} is trained "
                f"with {known}: drop the key"
            )
        objective = self.objective.name or family.objectives[0]
        if self.objective.timestep_sampling == "log_normal" and objective != "edm":
            raise ValueError("objective.timestep_sampling log_normal is for edm alone: drop it")
        if self.objective.prediction and objective != "ddpm":
            raise ValueError(f"objective.prediction is for ddpm, not {objective}: drop it")
        if family.media == "audio" and any(each.has_masks for each in self.datasets):
            raise ValueError(
                f"datasets.mask_suffix is for pictures and videos, but family {family.name} is "
                "trained on sounds: drop the key"
            )
        return self

    @model_validator(mode="after")
    def _has_something_to_cache(self) -> Self:
        family = FAMILIES[self.model.family]
        if self.cache.images != "auto" and not family.from_picture:
            raise ValueError(
                f"cache.images means nothing for family {family.name}, whose samples go on from no "
                "picture: drop it"
            )
        for key in ("latents", "text"):
            mode = getattr(self.cache, key)
            if mode in {"before", "on_demand"} and not family.needs_base:
                raise ValueError(
                    f"cache.{key} means nothing for family {family.name}, which has no encoders: "
                    "drop it"
                )
        if self.cache.text in {"before", "on_demand"} and self.adapter.text_encoder:
            raise ValueError(
                f"cache.text is {self.cache.text}, but adapter.text_encoder changes what captions "
                "become in every step: drop one of them"
            )
        shuffled = [each.captions.shuffle and not each.evaluation for each in self.datasets]
        if self.cache.text == "before" and any(shuffled):
            raise ValueError(
                f"cache.text is before, but datasets.{shuffled.index(True)}.captions.shuffle makes "
                "another text of a caption each time it is seen: use on_demand or off, or write "
                "the variants that you want as several captions and drop shuffle"
            )
        return self

    @model_validator(mode="after")
    def _has_datasets_of_its_kind(self) -> Self:
        family = FAMILIES[self.model.family]
        for number, dataset in enumerate(self.datasets):
            unused = {
                "only": family.media == "audio" and dataset.only != FilterSpec(),
                "columns.lyrics": family.media != "audio" and dataset.columns.lyrics,
            }
            for key, is_given in unused.items():
                if is_given:
                    raise ValueError(
                        f"datasets.{number}.{key} means nothing for family {family.name}, which is "
                        f"trained on {family.media}: drop it"
                    )
        return self

    @model_validator(mode="after")
    def _has_an_adapter_that_fits(self) -> Self:
        family = FAMILIES[self.model.family]
        if unused := self.adapter.unused(self.adapter_kind):
            raise ValueError(
                f"adapter.{unused[0]} means nothing for adapter.kind {self.adapter_kind}: drop it"
            )
        if self.adapter.layout == "kohya" and not family.kohya_lora:
            raise ValueError(
                f"adapter.layout: Kohya has no names for {family.name}: use diffusers or comfyui"
            )
        if self.adapter.text_encoder and not family.text_encoder_lora:
            raise ValueError(
                f"adapter.text_encoder: the text encoders of {family.name} are not trained: drop it"
            )
        is_masked = self.adapter.lycoris.algorithm == "tlora" and self.adapter_kind == "lycoris"
        if is_masked and self.batch_size != 1:
            raise ValueError(
                f"batch_size is {self.batch_size}, but adapter.lycoris.algorithm tlora has one "
                "mask of ranks for a whole batch: set it to 1"
            )
        if self.adapter.text_encoder_learning_rate and not self.adapter.text_encoder:
            raise ValueError(
                "adapter.text_encoder_learning_rate means nothing without adapter.text_encoder: "
                "add it, or drop the key"
            )
        if self.adapter_kind != "full" and not family.needs_base and self.model.base is None:
            raise ValueError(
                f"adapter.kind is {self.adapter_kind}, which needs weights to adapt: give "
                "model.base, or adapter.kind full"
            )
        return self

    @model_validator(mode="after")
    def _fits_into_memory_as_asked(self) -> Self:
        family = FAMILIES[self.model.family]
        for mistake in self.memory.mistakes():
            raise ValueError(mistake)
        if self.adapter_kind == "full":
            for key, is_given in {
                "quantization.format": self.memory.quantization.format,
                "offload.level": self.memory.offload.level,
            }.items():
                if is_given:
                    raise ValueError(
                        f"memory.{key} is for frozen weights, but adapter.kind full trains them "
                        "all: drop it, or use adapter.kind lora"
                    )
        if self.memory.quantization.text_encoders and not family.needs_base:
            raise ValueError(
                f"memory.quantization.text_encoders: {family.name} has no text encoder: drop it"
            )
        format_ = self.memory.quantization.format
        if self.speed.compile and format_ not in {None, "nf4"}:
            raise ValueError(
                f"speed.compile: torch compiles no block whose answers share memory, such as "
                f"flux's, around weights of memory.quantization.format {format_}: use nf4, or drop "
                "one of them"
            )
        if self.speed.compile and self.memory.offload.level:
            raise ValueError(
                "speed.compile: compiled blocks hold on to the weights that memory.offload brings "
                "and takes away: drop one of them"
            )
        if self.speed.attention != "native" and not family.needs_base:
            raise ValueError(f"speed.attention: {family.name} has no choice of attention: drop it")
        return self

    @model_validator(mode="after")
    def _has_an_optimizer_that_fits(self) -> Self:
        optimizer = self.optimizer
        if optimizer.fused_backward and self.accumulation > 1:
            raise ValueError(
                f"accumulation is {self.accumulation}, but optimizer.fused_backward steps in each "
                "backward pass: set it to 1, or drop optimizer.fused_backward"
            )
        for key in ("offload", "fused_backward"):
            if getattr(optimizer, key) and self.precision == "fp16":
                raise ValueError(
                    f"optimizer.{key} knows nothing of the scaled gradients of precision fp16: use "
                    "bf16, or drop it"
                )
        return self

    @model_validator(mode="after")
    def _has_an_adapter_for_sliders(self) -> Self:
        if all(dataset.slider_strength is None for dataset in self.datasets):
            return self
        if self.adapter_kind not in {"lora", "lycoris"}:
            raise ValueError(
                "datasets.slider_strength is for adapter.kind lora or lycoris, not "
                f"{self.adapter_kind}: drop it"
            )
        if self.adapter.init not in {"default", "gaussian"}:
            raise ValueError(
                f"adapter.init {self.adapter.init} takes its matrices out of the weights, which "
                "makes no slider: use default or gaussian"
            )
        return self

    @model_validator(mode="after")
    def _has_the_pictures_that_it_reads(self) -> Self:
        family, given = (
            FAMILIES[self.model.family],
            [each.has_conditioning for each in self.datasets],
        )
        is_controlnet = self.adapter_kind == "controlnet"
        if is_controlnet and self.steps == 0:
            raise ValueError("steps is 0, which draws with the base alone: drop adapter.kind")
        if is_controlnet and not family.has_controlnet:
            raise ValueError(
                f"adapter.kind is controlnet, but {family.name} has none: choose another"
            )
        if not is_controlnet and not family.edits and not family.from_picture:
            prompts = self.validation.prompts
            if any(given) or self.validation.conditioning or any(p.conditioning for p in prompts):
                raise ValueError(
                    "conditioning pictures are read by a ControlNet, by a family that edits "
                    "pictures, and by one whose videos go on from them, alone: give adapter.kind "
                    "controlnet, or drop datasets.conditioning and validation.conditioning"
                )
            return self
        if not all(given) and not family.from_picture:
            reader = "the ControlNet" if is_controlnet else family.name
            raise ValueError(
                f"datasets.{given.index(False)}.conditioning is missing: give the folder of the "
                f"pictures that {reader} reads"
            )
        wanted = sum(each.conditioning is None for each in self.validation.prompts)
        found = len(self.validation.conditioning)
        if wanted != found:
            raise ValueError(
                f"validation.conditioning has {found} pictures for {wanted} prompts: give one each"
            )
        return self

    @model_validator(mode="after")
    def _has_a_strategy_that_fits(self) -> Self:
        said = self.distributed.misfit(self)
        if said:
            raise ValueError(f"distributed: {said}")
        return self

    @model_validator(mode="after")
    def _validates_what_it_can(self) -> Self:
        family, validation = FAMILIES[self.model.family], self.validation
        sizes = [*validation.resolutions, *(each.resolution for each in validation.prompts)]
        for text in filter(None, sizes):
            if family.alignment is None:
                raise ValueError(
                    f"validation.resolutions mean nothing for family {family.name}, whose samples "
                    "have one size: drop them"
                )
            if any(side % family.alignment for side in size_of(text)):
                raise ValueError(
                    f"validation.resolutions: {text} must be multiples of {family.alignment} for "
                    f"family {family.name}"
                )
        if validation.clip and family.media == "audio":
            raise ValueError("validation.clip is for pictures and videos: drop it")
        if validation.sweep and self.adapter_kind not in {"lora", "lycoris"}:
            raise ValueError(
                f"validation.sweep is for adapter.kind lora or lycoris, not {self.adapter_kind}: "
                "drop it"
            )
        if validation.sweep and self.adapter.init not in {"default", "gaussian"}:
            raise ValueError(
                f"validation.sweep asks the base alone, whose weights adapter.init "
                f"{self.adapter.init} changes: use default or gaussian, or drop it"
            )
        moved = {
            "distributed.strategy": self.distributed.spreads_weights,
            "memory.quantization": bool(self.memory.quantization.format),
            "memory.offload": bool(self.memory.offload.level),
        }
        for key, is_given in moved.items():
            if is_given and validation.sweep and validation.sweep.adapters:
                raise ValueError(
                    f"validation.sweep.adapters are added to the frozen weights, which {key} keeps "
                    "in another form: drop one of them"
                )
        strengths = any(each.adapter_strength is not None for each in validation.prompts)
        if strengths and self.adapter_kind not in {"lora", "lycoris"}:
            raise ValueError(
                "validation.prompts.adapter_strength is for adapter.kind lora or lycoris, not "
                f"{self.adapter_kind}: drop it"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps == 0 and self.model.base is None:
            raise ValueError("steps is 0, which only validates: give model.base, or steps >= 1")
        if self.steps == 0 and not self.validation.draws:
            raise ValueError("steps is 0, which only validates: give validation.prompts to draw")
        if self.steps and not self.datasets:
            raise ValueError("datasets is empty: give at least one, with its name or its path")
        if self.steps and all(dataset.evaluation for dataset in self.datasets):
            raise ValueError("datasets are all for evaluation: give one to train on")
        if self.steps and self.schedule.warmup_steps > self.steps:
            raise ValueError(
                f"schedule.warmup_steps {self.schedule.warmup_steps} is more than steps "
                f"{self.steps}: lower it"
            )
        return self
