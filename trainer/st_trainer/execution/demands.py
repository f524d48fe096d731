"""What a specification asks of the device: checked before anything is read or loaded."""

import os

import torch

from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.quantization.registry import quantizer_for
from st_trainer.ranks import world_of


def device_type() -> str:
    """Type of the device of a run, such as ``cuda`` or ``cpu``."""
    found = torch.accelerator.current_accelerator()
    return found.type if found and torch.accelerator.is_available() else "cpu"


def must_suit(spec: TrainingSpec, device: str, world: int | None = None) -> None:
    """Raise ``BadSpecError`` where ``spec`` asks for what does not run on a type of ``device``."""
    world = world_of(os.environ) if world is None else world
    for field, mend in impossible(spec, device, world):
        raise BadSpecError(f"training.{field}: {mend}")
    quantization = spec.memory.quantization
    if quantization.format:
        field = "training.memory.quantization.format"
        quantizer_for(quantization.format, quantization.backend, device, field)
    if quantization.text_encoders:
        field = "training.memory.quantization.text_encoders"
        quantizer_for(quantization.text_encoders, None, device, field)


def impossible(spec: TrainingSpec, device: str, world: int) -> list[tuple[str, str]]:
    """Fields, and why each does not go on a type of ``device`` in ``world`` processes; the mend."""
    found = []
    if spec.precision == "fp16" and device == "cpu":
        found.append(("precision", "fp16 is not trained on a CPU: use fp32 or bf16"))
    if spec.optimizer.offload and device == "cpu":
        found.append(
            ("optimizer.offload", "the run is on a CPU, where the state lies already: drop it")
        )
    if "paged" in spec.optimizer.name and device == "cpu":
        found.append(
            ("optimizer.name", "the run is on a CPU, where nothing is paged: use adamw_8bit")
        )
    if spec.memory.offload.level and spec.memory.offload.to == "cpu" and device == "cpu":
        found.append(
            (
                "memory.offload.to",
                "the run is on a CPU, where the weights lie already: use disk, or drop it",
            )
        )
    if spec.memory.offload.stream and device != "cuda":
        found.append(("memory.offload.stream", f"there are no streams on {device}: drop the key"))
    if world > 1 and spec.memory.offload.level:
        found.append(
            (
                "memory.offload.level",
                f"{world} processes exchange all weights at the start: drop it",
            )
        )
    if world > 1 and spec.optimizer.fused_backward:
        found.append(
            (
                "optimizer.fused_backward",
                f"gradients of {world} processes are averaged after it has stepped: drop it",
            )
        )
    return found
