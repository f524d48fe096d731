"""One batch of a step, through the code of a run, on tensors without values."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from st_shared.spec.distributed import DistributedSpec
from st_shared.spec.families import FAMILIES
from st_shared.spec.memory import MemorySpec, SpeedSpec
from st_shared.spec.optimizer import EmaSpec, OptimizerSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.registry import make_adapter
from st_trainer.caching.encodings import Kind
from st_trainer.caching.prepare import modes_of
from st_trainer.errors import BadSpecError
from st_trainer.execution.prepare import prepared
from st_trainer.execution.recomputation import anew_under
from st_trainer.families.family import Condition, Denoiser, Encoding
from st_trainer.families.first_frame import Beginning, FromPicture
from st_trainer.planning import sharing
from st_trainer.planning.empty import empty_denoiser, fill
from st_trainer.planning.imagined import group_of
from st_trainer.planning.runs import Cost, cost
from st_trainer.planning.trace import Work
from st_trainer.planning.wide import WideAsOnGpu
from st_trainer.quantization.model import text_encoders
from st_trainer.strategies.context_parallel import share_tokens
from st_trainer.strategies.strategy import Answering
from st_trainer.weights import DTYPES

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Step:
    """What one batch of a step takes beside what is always there."""

    peak: int
    """Bytes at the peak of the passes, gradients of what is trained among them."""
    encoding: int
    """Bytes at the peak of encoders, which work before that."""
    work: Work
    """What is exchanged goes to the processes that share the tokens of the batch."""


def plain(spec: TrainingSpec) -> TrainingSpec:
    """``spec`` without what alters neither the code of a step nor the sizes that it works on.

    Other code of attention than ``native_math`` never holds its scores, as torch's own does not.
    A gradient that is spread leaves this process like one whose step is made at once.
    """
    scores = "native_math" if spec.speed.attention == "native_math" else "native"
    gives_away = sharing.spreads_gradients(spec.distributed)
    at_once = spec.optimizer.fused_backward or gives_away
    fused = OptimizerSpec().model_copy(update={"fused_backward": at_once})
    together = spec.distributed.context_parallel
    return spec.model_copy(
        update={
            "memory": MemorySpec(gradient_checkpointing=spec.memory.gradient_checkpointing),
            "speed": SpeedSpec(attention=scores),
            "adapter": spec.adapter.model_copy(update={"init": "default", "continue_from": None}),
            "optimizer": fused,
            "ema": EmaSpec(),
            "accumulation": 1 if gives_away else min(spec.accumulation, 2),
            "distributed": DistributedSpec(context_parallel=together),
        }
    )


def traced(spec: TrainingSpec, stay: frozenset[Kind]) -> tuple[Denoiser, Step]:
    """The model of ``spec`` without weights, and what a batch takes while encoders ``stay``.

    Raises:
        BadSpecError: the model's configuration is not there, its code needs values to run, or its
            tokens cannot be shared as is asked.
    """
    denoiser = empty_denoiser(spec)
    denoiser = prepared(denoiser, make_adapter(spec), spec, CPU)
    together = spec.distributed.context_parallel
    with group_of(together):
        if together > 1:
            share_tokens(denoiser, spec.distributed, together)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fill(denoiser, DTYPES[spec.precision])
            try:
                return denoiser, _traced_step(denoiser, spec, stay)
            except (RuntimeError, NotImplementedError) as error:
                family = spec.model.family
                raise BadSpecError(
                    f"training.model.family: {family} cannot be planned with these options: "
                    f"{type(error).__name__}: {str(error).splitlines()[0]}"
                ) from error


def staying(spec: TrainingSpec) -> frozenset[Kind]:
    """The kinds whose encoders are in memory during steps.

    Where the specification leaves it open, a run is taken to see all of its samples.
    """
    if not FAMILIES[spec.model.family].needs_base:
        return frozenset()
    modes = modes_of(spec, 1, 1)
    return frozenset(kind for kind, mode in modes.items() if mode != "before")


def _traced_step(denoiser: Denoiser, spec: TrainingSpec, stay: frozenset[Kind]) -> Step:
    """One batch through encoders, as far as they ``stay``, and the model, and back; no values."""
    count = spec.batch_size
    few = min(count, spec.cache.at_once)
    shown: Condition = {}
    seeing = pictured = Cost(0, Work())
    with torch.no_grad():
        if Kind.LATENTS in stay:
            samples = torch.empty(few, *denoiser.sample_shape)
            seeing = cost([], 1, partial(denoiser.family.encoded, denoiser.assets, samples))
        if isinstance(denoiser.family, FromPicture):
            shown, pictured = _shown(denoiser, denoiser.family, few, stay)
    rows: list[Condition] = []
    with torch.no_grad():
        reading = cost(text_encoders(denoiser), 1, lambda: rows.append(denoiser.longest()))
    condition = {name: torch.cat([each[:1]] * count) for name, each in (rows[-1] | shown).items()}
    passes = _passes(denoiser, spec, condition)
    reads = Kind.TEXT in stay and not spec.adapter.text_encoder
    return Step(
        passes.peak,
        max(seeing.peak, pictured.peak, few * reading.peak if reads else 0),
        passes.work
        + (seeing.work + pictured.work) * -(-count // few)
        + (reading.work * count if reads else Work()),
    )


def _shown(
    denoiser: Denoiser, family: FromPicture, few: int, stay: frozenset[Kind]
) -> tuple[Condition, Cost]:
    """What the model is told of ``few`` pictures, and what that takes while encoders ``stay``."""
    assets, (channels, frames, *size) = denoiser.assets, denoiser.sample_shape
    beginning = Beginning(torch.empty(few, channels, *size), frames)
    made: dict[Kind, Encoding] = {}

    def see() -> None:
        made[Kind.IMAGES] = family.embedded(assets, beginning.pictures)

    def begin() -> None:
        made[Kind.FIRST_FRAMES] = family.begun(assets, beginning)

    encoder = assets["image_encoder"]
    found = {Kind.IMAGES: cost([encoder], 1, see), Kind.FIRST_FRAMES: cost([], 1, begin)}
    counted = [each for kind, each in found.items() if kind in stay] or [Cost(0, Work())]
    told = family.begins(assets, made[Kind.IMAGES], made[Kind.FIRST_FRAMES])
    work = sum((each.work for each in counted), Work())
    return told, Cost(max(each.peak for each in counted), work)


def _passes(denoiser: Denoiser, spec: TrainingSpec, condition: Condition) -> Cost:
    """One batch through the model and back; gradients of batches before it are there already."""
    count, dtype = spec.batch_size, DTYPES[spec.precision]
    objective, module = denoiser.objective, denoiser.module
    times = objective.from_share(torch.rand(count))
    clean = torch.empty(count, *denoiser.latent_shape)
    noisy = objective.noisy(clean, torch.empty_like(clean), times)
    module.train()
    learned = [*trained(module).values()]
    answering = Answering(denoiser, autocast=None if dtype is torch.float32 else dtype)

    def compute() -> None:
        for each in learned if spec.accumulation == 1 else ():
            each.grad = None
        seen = denoiser.encode(["word"] * count) if spec.adapter.text_encoder else condition
        with (
            torch.autocast("cpu", dtype, enabled=dtype is not torch.float32),
            anew_under(WideAsOnGpu),
            WideAsOnGpu(),
        ):
            answer = answering(noisy, times, seen)
            loss = answer.float().square().mean()
        loss.backward()

    for each in learned:
        if spec.accumulation > 1:
            each.grad = torch.empty_like(each)
        if spec.optimizer.fused_backward:
            each.register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]
    return cost([module], spec.memory.gradient_checkpointing or 1, compute)


def _forget(parameter: Tensor) -> None:
    """Let go of a gradient, as an optimiser does that makes its step during the backward pass."""
    parameter.grad = None
