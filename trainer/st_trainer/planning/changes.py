"""Changes of a specification that save memory, the cheapest first, and what each costs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from st_shared.spec.families import FAMILIES
from st_shared.spec.memory import WeightFormat
from st_shared.spec.training import TrainingSpec
from st_trainer.execution.demands import impossible
from st_trainer.optimizers.registry import OPTIMIZERS
from st_trainer.planning.accelerators import Accelerator

DEVICE = "cuda"
"""Type of the device that plans are for."""


@dataclass(frozen=True)
class Change:
    """One change of a specification."""

    field: str
    """The key below ``training``."""
    value: Any
    cost: str
    """What is given up."""


Changes = tuple[Change, ...]
Step = Callable[[TrainingSpec], Changes]


def applied(spec: TrainingSpec, changes: Changes) -> TrainingSpec | None:
    """``spec`` with ``changes``; None where they do not go together, or no run would take them."""
    document = spec.model_dump(mode="json", exclude_unset=True)
    for change in changes:
        *parents, last = change.field.split(".")
        place = document
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = change.value
    try:
        changed = TrainingSpec.model_validate(document)
    except ValidationError:
        return None
    return None if impossible(changed, DEVICE, changed.distributed.processes or 1) else changed


def possible(spec: TrainingSpec, target: Accelerator) -> list[Step]:
    """What may be changed, the cheapest first; of those in ``spreading`` one alone."""
    return [*_steps(spec, target)]


def _steps(spec: TrainingSpec, target: Accelerator) -> Iterator[Step]:
    yield partial(_precision, target)
    yield _average
    yield _checkpointing
    alone = (spec.distributed.processes or 1) == 1
    yield from () if alone else (_fully_sharded, _zero)
    yield partial(_encoders, "int8")
    yield _moments
    yield partial(_format, "int8")
    size = spec.batch_size
    while size > 1:
        size //= 2
        yield _smaller_batch
    together = spec.distributed.context_parallel
    while 2 * together <= min(spec.distributed.processes or 1, _MOST_TOGETHER):
        together *= 2
        yield _shared_tokens
    yield partial(_format, "nf4")
    yield partial(_encoders, "nf4")
    yield _state_on_host
    yield from () if alone else (_zero_on_host, _fully_sharded_on_host)
    yield _offload


_MOST_TOGETHER = 8
"""Processes that are proposed to share tokens: those of one host."""


def _precision(target: Accelerator, spec: TrainingSpec) -> Changes:
    if spec.precision != "fp32":
        return ()
    half = "bf16" if target.has_bf16 else "fp16"
    return (Change("precision", half, "activations and frozen weights are rounded; faster"),)


def _average(spec: TrainingSpec) -> Changes:
    has_own = OPTIMIZERS[spec.optimizer.name].has_average
    if not spec.ema.enabled or spec.ema.device == "cpu" or has_own:
        return ()
    return (Change("ema.device", "cpu", "what is trained is copied to the host each step"),)


def _checkpointing(spec: TrainingSpec) -> Changes:
    if spec.memory.gradient_checkpointing == 1:
        return ()
    cost = "each block is computed twice: a step takes about a third longer"
    return (Change("memory.gradient_checkpointing", 1, cost),)


def _encoders(format_: WeightFormat, spec: TrainingSpec) -> Changes:
    if not FAMILIES[spec.model.family].needs_base or spec.adapter.text_encoder:
        return ()
    cost = f"captions are read by text encoders in {format_}"
    return (Change("memory.quantization.text_encoders", format_, cost),)


def _moments(spec: TrainingSpec) -> Changes:
    if spec.optimizer.name != "adamw" or spec.optimizer.options:
        return ()
    return (Change("optimizer.name", "adamw_8bit", "moments are rounded to eight bits"),)


def _smaller_batch(spec: TrainingSpec) -> Changes:
    if spec.batch_size % 2:
        return ()
    cost = "the same is learned, in more and smaller parts: slower where parts are small"
    return (
        Change("batch_size", spec.batch_size // 2, cost),
        Change("accumulation", spec.accumulation * 2, "see batch_size"),
    )


def _format(format_: WeightFormat, spec: TrainingSpec) -> Changes:
    if spec.adapter_kind == "full":
        return ()
    cost = {
        "int8": "frozen weights are rounded to 8 bits; a step takes somewhat longer",
        "nf4": "frozen weights are rounded to 4 bits: quality suffers a little; slower",
    }[format_]
    return (Change("memory.quantization.format", format_, cost),)


def _state_on_host(_spec: TrainingSpec) -> Changes:
    cost = "what is trained and its gradients go to the host and back in each step"
    return (Change("optimizer.offload", value=True, cost=cost),)


def _offload(spec: TrainingSpec) -> Changes:
    if spec.memory.gradient_checkpointing != 1:
        return ()
    if spec.memory.quantization.format or spec.memory.quantization.text_encoders:
        return ()
    cost = "weights go to the accelerator block by block, in each pass: often several times slower"
    return (Change("memory.offload.level", "block", cost),)


def _fully_sharded(spec: TrainingSpec) -> Changes:
    asked = spec.distributed
    if asked.strategy == "deepspeed":
        return ()
    if asked.strategy == "fsdp2":
        cost = "blocks are gathered once more, for the backward pass"
        again = Change("distributed.reshard_after_forward", value=True, cost=cost)
        return () if asked.reshard_after_forward else (again,)
    cost = "weights are gathered block by block in each pass: slower where links are"
    return (Change("distributed.strategy", "fsdp2", cost),)


def _zero(spec: TrainingSpec) -> Changes:
    asked = spec.distributed
    if asked.strategy == "fsdp2":
        return ()
    if asked.strategy == "deepspeed":
        cost = "weights are gathered when they are used: slower where links are"
        return () if asked.zero_stage == 3 else (Change("distributed.zero_stage", 3, cost),)
    return (
        Change("distributed.strategy", "deepspeed", "needs st-fleet[deepspeed]"),
        Change("distributed.zero_stage", 2, "each process steps for a part, and sends it to all"),
        Change(
            "distributed.options.reduce_bucket_size", 50_000_000, "gradients go in smaller buckets"
        ),
    )


def _zero_on_host(spec: TrainingSpec) -> Changes:
    asked = spec.distributed
    if asked.strategy == "fsdp2":
        return ()
    cost = "the optimiser steps on the host, and weights come back from there"
    found = [Change("distributed.offload_optimizer", "cpu", cost)]
    if asked.strategy == "deepspeed" and asked.zero_stage == 3:
        found.append(Change("distributed.offload_parameters", "cpu", "weights wait on the host"))
    return (*(_zero(spec) if asked.strategy == "ddp" else ()), *found)


def _fully_sharded_on_host(spec: TrainingSpec) -> Changes:
    if spec.distributed.strategy == "deepspeed":
        return ()
    cost = "weights come from the host in each pass, and the optimiser steps there: much slower"
    offloads = Change("distributed.offload_parameters", "cpu", cost)
    return (*_fully_sharded(spec), offloads)


def _shared_tokens(spec: TrainingSpec) -> Changes:
    """Twice as many processes share a sample, and take twice as many one after the other."""
    asked = spec.distributed
    together, processes = 2 * asked.context_parallel, asked.processes or 1
    if processes % together:
        return ()
    cost = "as many processes share a sample and exchange heads in each layer; the same is learned"
    return (
        Change("distributed.context_parallel", together, cost),
        Change("accumulation", spec.accumulation * 2, "see distributed.context_parallel"),
    )


SPREADING: tuple[Step, ...] = (_fully_sharded, _zero, _zero_on_host, _fully_sharded_on_host)
"""Those that choose what is spread, of which a proposal takes one."""


def more_processes(spec: TrainingSpec, processes: int) -> Changes:
    """``processes`` instead of one, which learn the same where the samples of a step allow it."""
    cost = "accelerators: ask for as many with resources.slots and resources.nodes"
    asked = Change("distributed.processes", processes, cost)
    for field, count in (("accumulation", spec.accumulation), ("batch_size", spec.batch_size)):
        if count % processes == 0:
            return (asked, Change(field, count // processes, "the same is learned, side by side"))
    cost += f"; a step learns from {processes} times the samples"
    return (Change("distributed.processes", processes, cost),)
