"""What of a model each of several processes holds, by the strategy that shares it; arithmetic.

FSDP2 cuts a weight into as many first rows for each as there are until none are left (torch's
``fully_shard``, which fills up what a process holds to the rows of the first). ZeRO cuts all that
is trained as one row of numbers (stages 1 and 2), or each weight (3); Rajbhandari et al. 2020.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from st_shared.spec.distributed import DistributedSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.optimizers.registry import OPTIMIZERS

SINGLE = 4
"""Bytes of a number in fp32, in which gradients, masters and states are."""
_ALIGNMENT = 2
"""ZeRO 1 and 2: numbers of a part are a multiple of it."""
_BUCKET, _PREFETCHED, _REUSED, _SMALL = 500_000_000, 50_000_000, 1_000_000_000, 100_000
"""DeepSpeed's defaults, in numbers: of a bucket of gradients, of weights that are fetched early,
how far on their next use may be for weights to stay, and up to which they are never given back."""


@dataclass(frozen=True)
class Weight:
    """One parameter of a model."""

    shape: tuple[int, ...]
    width: int
    """Bytes of a number."""
    is_trained: bool
    unit: int | None = None
    """Which of the blocks that the model repeats it belongs to; None: to none of them."""

    @property
    def numbers(self) -> int:
        """How many there are."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return self.numbers * self.width

    def rows(self, processes: int, rank: int | None = None) -> tuple[int, ...]:
        """Shape of what FSDP2 leaves at ``rank``; without one, as it is filled up at all."""
        whole, *rest = self.shape or (1,)
        most = -(-whole // processes)
        here = most if rank is None else max(0, min(most, whole - most * rank))
        return (here, *rest)


@dataclass(frozen=True)
class Held:
    """Bytes that one process holds of a model that is shared, apart from its activations."""

    base: int
    adapter: int
    gradients: int
    optimizer: int
    average: int
    buffers: int
    """What the strategy needs besides: buckets, and weights that are gathered to be used."""
    host: int = 0
    """The part that lies in the memory of the host."""
    start: int = 0
    """Bytes at once before the model is spread, where that is done on the accelerator."""


def spreads_gradients(asked: DistributedSpec) -> bool:
    """Whether a process lets go of the gradients of others while it makes them."""
    return asked.spreads_weights or (asked.strategy == "deepspeed" and asked.zero_stage == 2)


def held(
    spec: TrainingSpec, weights: Sequence[Weight], carried: int, processes: int, rank: int = 0
) -> Held:
    """What ``rank`` of ``processes`` holds of ``weights`` by the strategy of ``spec``.

    ``carried``: bytes of what is no weight, such as tables, which every process has. With ``ddp``
    weights are left out, which may be held in fewer bits.
    """
    match spec.distributed.strategy:
        case "fsdp2":
            found = _fully_sharded(spec, weights, carried, processes, rank)
        case "deepspeed" if spec.distributed.zero_stage == 3:
            found = _zero_sharded(spec, weights, carried, processes)
        case "deepspeed":
            found = _zero_replicated(spec, weights, carried, processes)
        case _:
            found = _replicated(spec, weights, processes)
    if not spec.ema.enabled or OPTIMIZERS[spec.optimizer.name].has_average:
        return replace(found, average=0)
    if spec.ema.device == "cpu" or _offloads(spec.distributed):
        return replace(found, average=0, host=found.host + found.average)
    return found


def _offloads(asked: DistributedSpec) -> bool:
    """Whether what an average is made of lies in the memory of the host."""
    if asked.strategy == "fsdp2":
        return asked.offload_parameters == "cpu"
    return asked.offload_optimizer == "cpu"


def borders(weights: Iterable[Weight], processes: int) -> list[int]:
    """Ranks of FSDP2 from which on a process may hold less of ``weights`` than the one before."""
    found = {0}
    for whole in {(each.shape or (1,))[0] for each in weights}:
        most = -(-whole // processes)
        found |= {whole // most, -(-whole // most)}
    return sorted(rank for rank in found if rank < processes)


def _replicated(spec: TrainingSpec, weights: Sequence[Weight], processes: int) -> Held:
    """DDP copies gradients into buckets to average them, which it keeps for good."""
    learned = [each for each in weights if each.is_trained]
    sizes = [each.size for each in learned]
    whole = sum(sizes)
    gradients = max(sizes, default=0) if spec.optimizer.fused_backward else whole
    state = sum(_state(spec)(each.shape) for each in learned)
    offloads = spec.optimizer.offload
    return Held(
        base=0,
        adapter=whole,
        gradients=gradients,
        optimizer=0 if offloads else state,
        average=whole,
        buffers=whole if processes > 1 else 0,
        host=state + 2 * whole if offloads else 0,
    )


def _fully_sharded(
    spec: TrainingSpec, weights: Sequence[Weight], carried: int, processes: int, rank: int
) -> Held:
    """A part of all; whole gradients only until those of the last batch of a step are there."""
    learned = [each for each in weights if each.is_trained]
    frozen = sum(_part(each, processes) for each in weights if not each.is_trained)
    adapter = sum(_part(each, processes) for each in learned)
    here = [each.rows(processes, rank) for each in learned]
    state = sum(_state(spec)(shape) for shape in here if prod(shape))
    average = sum(
        prod(shape) * each.width for shape, each in zip(here, learned, strict=True) if prod(shape)
    )
    waiting = sum(each.numbers * SINGLE for each in learned) if spec.accumulation > 1 else 0
    buffers = _gathered_units(spec, weights)
    if _offloads(spec.distributed):
        host = frozen + 2 * adapter + state  # gradients too
        return Held(carried, 0, waiting, 0, average, buffers, host)
    return Held(frozen + carried, adapter, adapter + waiting, state, average, buffers)


def _part(weight: Weight, processes: int) -> int:
    return prod(weight.rows(processes)) * weight.width


def _gathered_units(spec: TrainingSpec, weights: Sequence[Weight]) -> int:
    """The block that is used, the next one on its way, gradients on theirs, and what is no block.

    Blocks that are not given back after the forward pass are all there.
    """
    units: dict[int | None, list[Weight]] = {}
    for each in weights:
        units.setdefault(each.unit, []).append(each)
    width = 2 if spec.precision == "bf16" else None
    whole = {
        unit: sum(each.numbers * (width or each.width) for each in members)
        for unit, members in units.items()
    }
    rest, largest = whole.pop(None, 0), max(whole.values(), default=0)
    there = 2 * largest if spec.distributed.reshard_after_forward else sum(whole.values()) + largest
    learned = [
        sum(each.numbers * ((width or each.width) + SINGLE) for each in members if each.is_trained)
        for members in units.values()
    ]
    return rest + there + max(learned, default=0)


def _zero_replicated(
    spec: TrainingSpec, weights: Sequence[Weight], carried: int, processes: int
) -> Held:
    """Weights whole, and a part of their masters, of states and, from stage 2 on, of gradients."""
    asked = spec.distributed
    learned = [each for each in weights if each.is_trained]
    count = sum(each.numbers for each in learned)
    aligned = -(-count // (_ALIGNMENT * processes)) * _ALIGNMENT
    part = aligned * SINGLE
    optimizer = part + _state(spec)((aligned,))
    base = sum(each.size for each in weights if not each.is_trained) + carried
    adapter, buffers = part * processes, _buckets(asked)
    is_first = asked.zero_stage == 1
    if _offloads(asked):
        largest = max((each.numbers for each in learned), default=0) * SINGLE
        host = optimizer + 2 * part + largest  # gradients, and the master on its way back
        gradients = count * SINGLE if is_first else 0
        return Held(base, adapter, gradients, 0, part, buffers + largest, host)
    kept = 2 * part if spec.accumulation > 1 else part
    gradients = count * SINGLE if is_first else kept
    return Held(base, adapter, gradients, optimizer, part, buffers)


def _zero_sharded(
    spec: TrainingSpec, weights: Sequence[Weight], carried: int, processes: int
) -> Held:
    """A part of all; what is trained is its own master, unless one lies on the host."""
    asked = spec.distributed
    parts = {True: 0, False: 0}
    for each in weights:
        parts[each.is_trained] += -(-each.numbers // processes) * each.width
    frozen, adapter = parts[False], parts[True]
    count = sum(-(-each.numbers // processes) for each in weights if each.is_trained)
    part, state = count * SINGLE, _state(spec)((count,))
    buffers = _buckets(asked) + _fetched(asked, weights)
    start = sum(each.size for each in weights) + carried
    if not _offloads(asked):
        return Held(frozen + carried, adapter, part, state, part, buffers, start=start)
    host = state + 3 * part  # the master, and gradients twice
    if asked.offload_parameters == "cpu":
        return Held(carried, 0, 0, 0, part, buffers, host + frozen + adapter, start)
    return Held(frozen + carried, adapter, 0, 0, part, buffers, host, start)


def _buckets(asked: DistributedSpec) -> int:
    """Gradients on their way: in one bucket, or in two where computing goes on meanwhile."""
    if not asked.options.get("contiguous_gradients", True):
        return 0
    is_double = asked.zero_stage != 3 and asked.options.get("overlap_comm", False)
    return _option(asked, "reduce_bucket_size", _BUCKET) * SINGLE * (2 if is_double else 1)


def _fetched(asked: DistributedSpec, weights: Sequence[Weight]) -> int:
    """Whole weights that ZeRO 3 has at once: small ones always, others near their next use.

    Those before the end of the forward pass are used again soon, by the backward pass.
    """
    small = _option(asked, "param_persistence_threshold", _SMALL)
    lasting = sum(each.size for each in weights if each.numbers <= small)
    others = [each for each in weights if each.numbers > small]
    count, whole = _total(others)
    soon = _option(asked, "max_reuse_distance", _REUSED) // 2
    soon += _option(asked, "prefetch_bucket_size", _PREFETCHED)
    soon += max((each.numbers for each in others), default=0)
    return lasting + (whole * min(soon, count) // count if count else 0)


def _total(weights: Iterable[Weight]) -> tuple[int, int]:
    """Numbers and bytes."""
    sizes = [(each.numbers, each.size) for each in weights]
    return sum(count for count, _ in sizes), sum(size for _, size in sizes)


def _option(asked: DistributedSpec, name: str, usual: int) -> int:
    """A number of ``options``, whose older name begins with its stage."""
    return int(asked.options.get(name, asked.options.get(f"stage3_{name}", usual)))


def _state(spec: TrainingSpec) -> Callable[[tuple[int, ...]], int]:
    return OPTIMIZERS[spec.optimizer.name].state_bytes
