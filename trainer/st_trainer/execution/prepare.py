"""A model made ready for its steps: adapter, fewer bits, recomputation, attention, compilation."""

import torch

from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import Adapter
from st_trainer.execution.attention import set_attention
from st_trainer.execution.compilation import compile_blocks
from st_trainer.execution.recomputation import recompute
from st_trainer.families.family import Denoiser
from st_trainer.quantization.model import quantised


def prepared(
    denoiser: Denoiser, adapter: Adapter, spec: TrainingSpec, device: torch.device
) -> Denoiser:
    """``denoiser`` with ``adapter`` attached, held and computed as ``spec`` wants it.

    Weights are rounded after the adapter has seen them, so that matrices that are taken out of them
    are exact; an adapter that hooks into layers needs those that stay.

    Raises:
        BadSpecError: ``device`` or the model cannot do it.
    """
    quantization, memory = spec.memory.quantization, spec.memory
    wanted = bool(quantization.format or quantization.text_encoders)
    if adapter.hooks_into_layers and wanted:
        denoiser.module.requires_grad_(requires_grad=False)
        denoiser = quantised(denoiser, quantization, device)
    adapter.attach(denoiser)
    if wanted and not adapter.hooks_into_layers:
        denoiser = quantised(denoiser, quantization, device)
    module = denoiser.module
    if spec.speed.attention != "native":
        set_attention(module, spec.speed.attention, device.type)
    if memory.gradient_checkpointing:
        recompute(module, memory.gradient_checkpointing)
    if spec.speed.compile:
        compile_blocks(module)
    return denoiser
