"""Bytes of every part of a run, and operations of a step, from a model without weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from st_shared.spec.families import FAMILIES
from st_shared.spec.memory import MemorySpec, QuantizationSpec, SpeedSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.registry import make_adapter
from st_trainer.caching.encodings import Kind
from st_trainer.caching.prepare import modes_of
from st_trainer.errors import BadSpecError
from st_trainer.execution.blocks import repeated_blocks
from st_trainer.execution.prepare import prepared
from st_trainer.families.family import Denoiser
from st_trainer.families.pretrained import Pretrained
from st_trainer.optimizers.registry import OPTIMIZERS
from st_trainer.planning.empty import empty_denoiser, fill
from st_trainer.planning.trace import Trace
from st_trainer.quantization.model import frozen_linears, text_encoders
from st_trainer.quantization.registry import Quantizer, quantizers
from st_trainer.weights import DTYPES

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Estimate:
    """What one process of a run takes; bytes on the accelerator, but for ``host``."""

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
    vae: int
    """The VAE, and what else the model carries."""
    host: int
    """Bytes in the memory of the host, of what is offloaded there."""
    operations: int
    """Floating-point operations of one optimiser step."""
    moved: int
    """Bytes that one optimiser step reads and writes of weights and states."""
    transferred: int
    """Bytes that it moves between host and accelerator."""

    @property
    def components(self) -> dict[str, int]:
        """The parts that make up the total, by name."""
        names = (
            "base", "adapter", "gradients", "optimizer", "average", "activations",
            "text_encoders", "vae",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> int:
        """Bytes on the accelerator at the peak of a step."""
        return sum(self.components.values())


def estimate(spec: TrainingSpec) -> Estimate:
    """What a run of ``spec`` takes; nothing is downloaded but configuration files.

    Raises:
        BadSpecError: the model's configuration is not there, or its code needs values to run.
    """
    memory = spec.memory
    plain = spec.model_copy(
        update={
            "memory": MemorySpec(gradient_checkpointing=memory.gradient_checkpointing),
            "speed": SpeedSpec(),
            "adapter": spec.adapter.model_copy(update={"init": "default", "continue_from": None}),
        }
    )
    denoiser = empty_denoiser(plain)
    denoiser = prepared(denoiser, make_adapter(plain), plain, CPU)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fill(denoiser, DTYPES[spec.precision])
        try:
            step = _traced_step(denoiser, plain, staying(spec))
        except (RuntimeError, NotImplementedError) as error:
            raise BadSpecError(
                f"training.model.family: {spec.model.family} cannot be planned with these options: "
                f"{type(error).__name__}: {str(error).splitlines()[0]}"
            ) from error
        return _summed(denoiser, spec, step)


@dataclass(frozen=True)
class _Step:
    """What one batch of a step takes beside what is always there."""

    peak: int
    """Bytes at the peak of the passes, gradients of what is trained among them."""
    encoding: int
    """Bytes at the peak of encoders, which work before that."""
    operations: int


def staying(spec: TrainingSpec) -> frozenset[Kind]:
    """The kinds whose encoders are in memory during steps.

    Where the specification leaves it open, a run is taken to see all of its samples.
    """
    if not FAMILIES[spec.model.family].needs_base:
        return frozenset()
    modes = modes_of(spec, 1, 1)
    return frozenset(kind for kind, mode in modes.items() if mode != "before")


def _traced_step(denoiser: Denoiser, spec: TrainingSpec, stay: frozenset[Kind]) -> _Step:
    """One batch through encoders, as far as they ``stay``, and the model, and back; no values."""
    count, dtype = spec.batch_size, DTYPES[spec.precision]
    few = min(count, spec.cache.at_once)
    with torch.no_grad(), Trace() as seeing:
        if Kind.LATENTS in stay:
            denoiser.family.encoded(denoiser.assets, torch.empty(few, *denoiser.sample_shape))
    with torch.no_grad(), Trace() as reading:
        row = denoiser.longest()
    condition = {name: torch.cat([each] * count) for name, each in row.items()}
    objective = denoiser.objective
    times = objective.from_share(torch.rand(count))
    clean = torch.empty(count, *denoiser.latent_shape)
    noisy = objective.noisy(clean, torch.empty_like(clean), times)
    denoiser.module.train()
    with Trace() as step:
        if spec.adapter.text_encoder:
            condition = denoiser.encode(["word"] * count)
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            answer = denoiser.predict(noisy, times, condition)
            loss = answer.float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
    reads = Kind.TEXT in stay and not spec.adapter.text_encoder
    return _Step(
        step.peak,
        max(seeing.peak, few * reading.peak if reads else 0),
        step.operations
        + seeing.operations * -(-count // few)
        + (reading.operations * count if reads else 0),
    )


def _summed(denoiser: Denoiser, spec: TrainingSpec, step: _Step) -> Estimate:
    module, memory, optimizer = denoiser.module, spec.memory, spec.optimizer
    kind, batches = OPTIMIZERS[optimizer.name], spec.accumulation
    learned = trained(module)
    sizes = {name: each.numel() * each.element_size() for name, each in learned.items()}
    adapter = sum(sizes.values())
    gradients = max(sizes.values()) if optimizer.fused_backward else adapter
    state = sum(kind.state_bytes(tuple(each.shape)) for each in learned.values())
    held, rounded, largest = held_bytes(module, memory.quantization)
    waiting = _offloaded(module, spec)
    stay, (reading, seeing) = staying(spec), _encoders(denoiser, memory.quantization)
    peak = max(step.peak + largest, step.encoding)
    passes = 3 if memory.gradient_checkpointing else 2
    has_average = spec.ema.enabled and not kind.has_average and spec.ema.device == "accelerator"
    return Estimate(
        base=held - waiting,
        adapter=adapter,
        gradients=gradients,
        optimizer=0 if optimizer.offload else state,
        average=adapter if has_average else 0,
        activations=max(0, peak - (adapter if batches == 1 else 0)),
        text_encoders=reading if Kind.TEXT in stay else 0,
        vae=seeing if stay & {Kind.LATENTS, Kind.CONTROL} else 0,
        host=waiting + (state + 2 * adapter if optimizer.offload else 0),
        operations=step.operations * batches,
        moved=passes * batches * (held + adapter + 4 * rounded) + 3 * state + 4 * adapter,
        transferred=(passes - 1) * batches * waiting + (3 * adapter if optimizer.offload else 0),
    )


def _encoders(denoiser: Denoiser, spec: QuantizationSpec) -> tuple[int, int]:
    """Bytes of all that captions pass through, and of the rest of what a model carries."""
    readers = text_encoders(denoiser)
    own = denoiser.family.encoders if isinstance(denoiser.family, Pretrained) else ()
    reading = seeing = 0
    for name, part in denoiser.assets.items():
        if not isinstance(part, nn.Module):
            continue
        if any(part is each for each in readers):
            reading += encoder_bytes(part, spec)
        elif name in own:
            reading += _bytes(part)
        else:
            seeing += _bytes(part)
    return reading, seeing


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
