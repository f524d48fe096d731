"""Bytes of every part of a run, and operations of a step, from a model without weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from st_shared.spec.memory import QuantizationSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.caching.encodings import Kind
from st_trainer.execution.blocks import repeated_blocks
from st_trainer.families.family import Denoiser
from st_trainer.families.first_frame import FromPicture
from st_trainer.families.pretrained import Pretrained
from st_trainer.optimizers.registry import OPTIMIZERS
from st_trainer.planning import exchange, sharing
from st_trainer.planning.batch import Step, plain, staying, traced
from st_trainer.planning.sharing import Weight
from st_trainer.quantization.model import frozen_linears, text_encoders
from st_trainer.quantization.registry import Quantizer, quantizers


@dataclass(frozen=True)
class RankTotal:
    """Neighbouring ranks that hold as much."""

    first: int
    last: int
    total: int
    """Bytes on the accelerator of each."""


@dataclass(frozen=True)
class Estimate:
    """What the first process of a run takes; bytes on the accelerator, but for ``host``."""

    base: int
    """Frozen weights of the model."""
    adapter: int
    """What is trained."""
    gradients: int
    optimizer: int
    """The optimiser's state."""
    average: int
    """The moving average."""
    activations: int
    """What a step holds at its peak beside gradients."""
    text_encoders: int
    image_encoder: int
    """What sees the pictures that videos go on from."""
    vae: int
    """The VAE, and what else the model carries."""
    host: int
    """Bytes in the memory of the host, of what is offloaded there."""
    operations: int
    """Floating-point operations of one optimiser step of this process."""
    touched: int
    """Bytes that its kernels read and write which have no such operations."""
    kernels: int
    """Kernels that the host starts for it."""
    moved: int
    """Bytes that one optimiser step reads and writes of weights and states."""
    transferred: int
    """Bytes that it moves between host and accelerator."""
    buffers: int = 0
    """What the strategy needs: buckets of gradients, weights that are gathered to be used."""
    start: int = 0
    """Bytes before the first step, where a strategy spreads a model that lies there whole."""
    exchanged: int = 0
    """Bytes that one optimiser step sends to other processes while it computes."""
    awaited: int = 0
    """The same, of what it waits for."""
    processes: int = 1
    """Those that train together; all hold as much, but for ``ranks``."""
    ranks: tuple[tuple[int, int, int], ...] = ()
    """Where processes hold more or less of the optimiser's state: first rank, bytes of its state,
    and of its average, as they change from rank to rank."""

    @property
    def components(self) -> dict[str, int]:
        """The parts that make up the total, by name."""
        names = (
            "base", "adapter", "gradients", "optimizer", "average", "buffers", "activations",
            "text_encoders", "image_encoder", "vae",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> int:
        """Bytes on the accelerator at the peak of a step, or before the first one."""
        return max(sum(self.components.values()), self.start)

    @property
    def by_rank(self) -> list[RankTotal]:
        """What every process takes; the first takes most."""
        changes = self.ranks or ((0, self.optimizer, self.average),)
        ends = [*(first - 1 for first, _, _ in changes[1:]), self.processes - 1]
        own = self.optimizer + self.average
        return [
            RankTotal(first, last, max(self.total - own + state + average, self.start))
            for (first, state, average), last in zip(changes, ends, strict=True)
        ]


def estimate(spec: TrainingSpec) -> Estimate:
    """What a run of ``spec`` takes; nothing is downloaded but configuration files.

    Raises:
        BadSpecError: the model's configuration is not there, or its code needs values to run.
    """
    return estimator()(spec)


def estimator() -> Callable[[TrainingSpec], Estimate]:
    """``estimate``, which traces once what several specifications have in common."""
    known: dict[str, tuple[Denoiser, Step]] = {}

    def asked(spec: TrainingSpec) -> Estimate:
        common, stay = plain(spec), staying(spec)
        key = f"{sorted(stay)} {common.model_dump_json()}"
        if key not in known:
            known[key] = traced(common, stay)
        denoiser, step = known[key]
        return _summed(denoiser, spec, step)

    return asked


def _summed(denoiser: Denoiser, spec: TrainingSpec, step: Step) -> Estimate:
    module, memory = denoiser.module, spec.memory
    processes, batches = spec.distributed.processes or 1, spec.accumulation
    frozen, rounded, largest = held_bytes(module, memory.quantization)
    waiting = _offloaded(module, spec)
    stay, encoders = staying(spec), _encoders(denoiser, memory.quantization)
    weights, carried = _weights(module), _carried(module)
    here = sharing.held(spec, weights, carried, processes)
    peak = max(step.peak + largest, step.encoding)
    traced_gradients = batches == 1 and not sharing.spreads_gradients(spec.distributed)
    traffic = exchange.of_step(spec, weights, processes)
    state = _state(spec, weights)
    adapter = sum(each.size for each in weights if each.is_trained)
    passes = 3 if memory.gradient_checkpointing else 2
    return Estimate(
        base=frozen - waiting if spec.distributed.strategy == "ddp" else here.base,
        adapter=here.adapter,
        gradients=here.gradients,
        optimizer=here.optimizer,
        average=here.average,
        activations=max(0, peak - (here.gradients if traced_gradients else 0)),
        text_encoders=encoders.text if Kind.TEXT in stay else 0,
        image_encoder=encoders.image if Kind.IMAGES in stay else 0,
        vae=encoders.other if stay - {Kind.TEXT, Kind.IMAGES} else 0,
        host=waiting + here.host,
        operations=step.work.operations * batches,
        touched=step.work.touched * batches,
        kernels=step.work.kernels * batches,
        moved=passes * batches * (frozen + adapter + 4 * rounded)
        + (3 * state + 4 * adapter) // (processes if spec.distributed.strategy != "ddp" else 1),
        transferred=(passes - 1) * batches * waiting + traffic.transferred,
        buffers=here.buffers,
        start=here.start,
        exchanged=traffic.exchanged,
        awaited=step.work.exchanged * batches,
        processes=processes,
        ranks=_ranks(spec, weights, carried, processes),
    )


def _weights(module: nn.Module) -> list[Weight]:
    """All parameters of ``module``, each once, with the block that it belongs to."""
    blocks = repeated_blocks(module)
    units = {
        id(each): place for place, (_, block) in enumerate(blocks) for each in block.parameters()
    }
    return [
        Weight(tuple(each.shape), each.element_size(), each.requires_grad, units.get(id(each)))
        for each in module.parameters()
    ]


def _carried(module: nn.Module) -> int:
    return sum({id(each): each.numel() * each.element_size() for each in module.buffers()}.values())


def _state(spec: TrainingSpec, weights: Sequence[Weight]) -> int:
    """Bytes of the optimiser's state of all processes."""
    kind = OPTIMIZERS[spec.optimizer.name]
    return sum(kind.state_bytes(each.shape) for each in weights if each.is_trained)


def _ranks(
    spec: TrainingSpec, weights: Sequence[Weight], carried: int, processes: int
) -> tuple[tuple[int, int, int], ...]:
    """Where what a process holds changes from one rank to the next; nothing where it does not."""
    if spec.distributed.strategy != "fsdp2":
        return ()
    learned = [each for each in weights if each.is_trained]
    found: list[tuple[int, int, int]] = []
    for rank in sharing.borders(learned, processes):
        here = sharing.held(spec, learned, carried, processes, rank)
        if not found or found[-1][1:] != (here.optimizer, here.average):
            found.append((rank, here.optimizer, here.average))
    return tuple(found) if len(found) > 1 else ()


@dataclass
class _Encoders:
    """Bytes of what a model carries."""

    text: int = 0
    """All that captions pass through."""
    image: int = 0
    """All that pictures pass through which videos go on from, but for the autoencoder."""
    other: int = 0


def _encoders(denoiser: Denoiser, spec: QuantizationSpec) -> _Encoders:
    readers, family, found = text_encoders(denoiser), denoiser.family, _Encoders()
    own = family.encoders if isinstance(family, Pretrained) else ()
    seeing = family.image_parts if isinstance(family, FromPicture) else ()
    for name, part in denoiser.assets.items():
        if not isinstance(part, nn.Module):
            continue
        if any(part is each for each in readers):
            found.text += encoder_bytes(part, spec)
        elif name in own:
            found.text += _bytes(part)
        elif name in seeing:
            found.image += _bytes(part)
        else:
            found.other += _bytes(part)
    return found


def held_bytes(module: nn.Module, spec: QuantizationSpec) -> tuple[int, int, int]:
    """Bytes of what is frozen in ``module``; of what is quantised, all in full and the largest.

    Both in the type that they are computed in, as which they are spread out to be used.
    """
    frozen = _bytes(module, frozen=True)
    if not spec.format:
        return frozen, 0, 0
    chosen = quantizers(spec.format, spec.backend)[0]
    names = frozen_linears(module, spec.exclude, ("controlnet", "lycoris"))
    full, fewer = _sizes(module, names, chosen)
    return frozen - sum(full) + fewer, sum(full), max(full, default=0)


def encoder_bytes(encoder: nn.Module, spec: QuantizationSpec) -> int:
    """Bytes of a text encoder."""
    whole = _bytes(encoder)
    if not spec.text_encoders:
        return whole
    chosen = quantizers(spec.text_encoders, None)[0]
    full, fewer = _sizes(encoder, frozen_linears(encoder), chosen)
    return whole - sum(full) + fewer


def _sizes(module: nn.Module, names: list[str], quantizer: Quantizer) -> tuple[list[int], int]:
    full, fewer = [], 0
    for name in names:
        weight = module.get_submodule(name).weight
        assert isinstance(weight, Tensor)  # noqa: S101 -- for mypy: it is that of a linear layer
        rows, columns = weight.shape
        full.append(weight.numel() * weight.element_size())
        fewer += quantizer.held(rows, columns, weight.element_size())
    return full, fewer


def _bytes(module: nn.Module, *, frozen: bool = False) -> int:
    found = {
        id(each): each.numel() * each.element_size()
        for each in (*module.parameters(), *module.buffers())
        if not (frozen and each.requires_grad)
    }
    return sum(found.values())


def _offloaded(module: nn.Module, spec: TrainingSpec) -> int:
    """Bytes of frozen blocks that wait elsewhere: all but the largest group, twice with streams."""
    offload = spec.memory.offload
    if not offload.level:
        return 0
    sizes = [_bytes(block, frozen=True) for _, block in repeated_blocks(module)]
    here = 1 if offload.stream is False else 2
    groups = [sum(sizes[n : n + offload.blocks]) for n in range(0, len(sizes), offload.blocks)]
    return max(0, sum(sizes) - here * max(groups, default=0))
