"""Changes that make a run fit, the cheapest first, and what each costs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from st_shared.spec.families import FAMILIES
from st_shared.spec.memory import WeightFormat
from st_shared.spec.training import TrainingSpec
from st_trainer.optimizers.registry import OPTIMIZERS
from st_trainer.planning.accelerators import Accelerator
from st_trainer.planning.estimate import Estimate

Estimator = Callable[[TrainingSpec], Estimate]


@dataclass(frozen=True)
class Change:
    """One change of a specification."""

    field: str
    """The key below ``training``."""
    value: Any
    cost: str
    """What is given up."""


@dataclass(frozen=True)
class Proposal:
    """A specification that fits, or the one that comes nearest."""

    spec: TrainingSpec
    estimate: Estimate
    changes: tuple[Change, ...]
    fits: bool


def proposed(spec: TrainingSpec, target: Accelerator, estimate: Estimator) -> Proposal:
    """The fewest of the cheapest changes with which ``spec`` fits ``target``.

    Each change is tried on top of those before it and kept where it saves something; once it fits,
    those that are not needed are taken back, the dearest first.
    """
    found = Proposal(spec, estimate(spec), (), fits=False)
    if found.estimate.total <= target.usable:
        return _fitting(found)
    for change in _changes(spec, target):
        present = change(found.spec)
        changed = applied(found.spec, present)
        if not present or changed is None:
            continue
        after = estimate(changed)
        if after.total < found.estimate.total:
            found = Proposal(changed, after, _joined(found.changes, present), fits=False)
        if after.total <= target.usable:
            return _fitting(_without_needless(spec, found, target, estimate))
    return found


def _fitting(found: Proposal) -> Proposal:
    return Proposal(found.spec, found.estimate, found.changes, fits=True)


def _joined(before: tuple[Change, ...], more: "tuple[Change, ...]") -> tuple[Change, ...]:
    """``before`` with ``more``, which replace those of the same field."""
    fields = {each.field for each in more}
    return (*(each for each in before if each.field not in fields), *more)


def _without_needless(
    spec: TrainingSpec, found: Proposal, target: Accelerator, estimate: Estimator
) -> Proposal:
    for dropped in reversed(found.changes):
        rest = tuple(each for each in found.changes if each is not dropped)
        fewer = applied(spec, rest)
        if fewer is None:
            continue
        after = estimate(fewer)
        if after.total <= target.usable:
            return _without_needless(
                spec, Proposal(fewer, after, rest, fits=True), target, estimate
            )
    return found


def applied(spec: TrainingSpec, changes: "tuple[Change, ...]") -> TrainingSpec | None:
    """``spec`` with ``changes``; None where they do not go together."""
    document = spec.model_dump(mode="json", exclude_unset=True)
    for change in changes:
        *parents, last = change.field.split(".")
        place = document
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = change.value
    try:
        return TrainingSpec.model_validate(document)
    except ValidationError:
        return None


Step = Callable[[TrainingSpec], "tuple[Change, ...]"]


def _changes(spec: TrainingSpec, target: Accelerator) -> Iterator[Step]:
    """What may be changed, the cheapest first."""
    yield partial(_precision, target)
    yield _average
    yield _checkpointing
    yield partial(_encoders, "int8")
    yield _moments
    yield partial(_format, "int8")
    size = spec.batch_size
    while size > 1:
        size //= 2
        yield _smaller_batch
    yield partial(_format, "nf4")
    yield partial(_encoders, "nf4")
    yield _state_on_host
    yield _offload


def _precision(target: Accelerator, spec: TrainingSpec) -> tuple[Change, ...]:
    if spec.precision != "fp32":
        return ()
    half = "bf16" if target.has_bf16 else "fp16"
    return (Change("precision", half, "activations and frozen weights are rounded; faster"),)


def _average(spec: TrainingSpec) -> tuple[Change, ...]:
    has_own = OPTIMIZERS[spec.optimizer.name].has_average
    if not spec.ema.enabled or spec.ema.device == "cpu" or has_own:
        return ()
    return (Change("ema.device", "cpu", "what is trained is copied to the host each step"),)


def _checkpointing(spec: TrainingSpec) -> tuple[Change, ...]:
    if spec.memory.gradient_checkpointing == 1:
        return ()
    cost = "each block is computed twice: a step takes about a third longer"
    return (Change("memory.gradient_checkpointing", 1, cost),)


def _encoders(format_: WeightFormat, spec: TrainingSpec) -> tuple[Change, ...]:
    if not FAMILIES[spec.model.family].needs_base or spec.adapter.text_encoder:
        return ()
    cost = f"captions are read by text encoders in {format_}"
    return (Change("memory.quantization.text_encoders", format_, cost),)


def _moments(spec: TrainingSpec) -> tuple[Change, ...]:
    if spec.optimizer.name != "adamw" or spec.optimizer.options:
        return ()
    return (Change("optimizer.name", "adamw_8bit", "moments are rounded to eight bits"),)


def _smaller_batch(spec: TrainingSpec) -> tuple[Change, ...]:
    if spec.batch_size % 2:
        return ()
    cost = "the same is learned, in more and smaller parts: slower where parts are small"
    return (
        Change("batch_size", spec.batch_size // 2, cost),
        Change("accumulation", spec.accumulation * 2, "see batch_size"),
    )


def _format(format_: WeightFormat, spec: TrainingSpec) -> tuple[Change, ...]:
    if spec.adapter_kind == "full":
        return ()
    cost = {
        "int8": "frozen weights are rounded to 8 bits; a step takes somewhat longer",
        "nf4": "frozen weights are rounded to 4 bits: quality suffers a little; slower",
    }[format_]
    return (Change("memory.quantization.format", format_, cost),)


def _state_on_host(_spec: TrainingSpec) -> tuple[Change, ...]:
    cost = "what is trained and its gradients go to the host and back in each step"
    return (Change("optimizer.offload", value=True, cost=cost),)


def _offload(spec: TrainingSpec) -> tuple[Change, ...]:
    if spec.memory.gradient_checkpointing != 1:
        return ()
    if spec.memory.quantization.format or spec.memory.quantization.text_encoders:
        return ()
    cost = "weights go to the accelerator block by block, in each pass: often several times slower"
    return (Change("memory.offload.level", "block", cost),)


def cached(estimate: Estimator) -> Estimator:
    """``estimate``, which is not asked twice about the same specification."""
    known: dict[str, Estimate] = {}

    def asked(spec: TrainingSpec) -> Estimate:
        key = spec.model_dump_json()
        if key not in known:
            known[key] = estimate(spec)
        return known[key]

    return asked
