"""What to change in a specification whose training did not fit into memory, cheapest first."""

from collections.abc import Iterator

from st_shared.spec.families import FAMILIES
from st_shared.spec.training import TrainingSpec

_LARGE_RANK = 32
_LARGE_SIDE = 512
_LAST = "use an accelerator with more memory, or a smaller model"


def cheapest_mend(spec: TrainingSpec) -> str:
    """The change that costs the result least, as a sentence for the person who wrote ``spec``."""
    return next(_mends(spec))


def _mends(spec: TrainingSpec) -> Iterator[str]:
    if spec.memory.gradient_checkpointing != 1:
        yield "set training.memory.gradient_checkpointing to 1, which costs a third of the speed"
    if spec.batch_size > 1:
        yield (
            f"lower training.batch_size from {spec.batch_size} to {spec.batch_size // 2} and "
            f"raise training.accumulation from {spec.accumulation} to {2 * spec.accumulation}"
        )
    if spec.precision == "fp32":
        yield "set training.precision to bf16, which halves the frozen weights and activations"
    if spec.adapter_kind == "full" and FAMILIES[spec.model.family].needs_base:
        yield "set training.adapter.kind to lora: gradients and moments of a small part alone"
    if spec.adapter_kind != "full" and spec.memory.quantization.format is None:
        yield "set training.memory.quantization.format to int8, or nf4"
    if spec.ema.enabled and spec.ema.device != "cpu":
        yield "set training.ema.device to cpu"
    side = spec.model.config.get("resolution", 0)
    if side > _LARGE_SIDE:
        yield f"lower training.model.config.resolution from {side} to {side // 2}"
    if spec.adapter_kind in {"lora", "lycoris"} and spec.adapter.rank > _LARGE_RANK:
        yield f"lower training.adapter.rank from {spec.adapter.rank}"
    yield _LAST
