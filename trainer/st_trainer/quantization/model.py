"""A model whose frozen linear layers are held in fewer bits."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import nn

from st_shared.spec.memory import QuantizationSpec
from st_trainer.families.family import Denoiser
from st_trainer.families.pretrained import Pretrained
from st_trainer.quantization.registry import Quantizer, quantizer_for

_OWN = ("controlnet", "lycoris")
"""Parts of the module that an adapter has put there, and writes."""


def quantised(denoiser: Denoiser, spec: QuantizationSpec, device: torch.device) -> Denoiser:
    """``denoiser`` with its frozen layers, and those of its text encoders, as ``spec`` wants them.

    Layers are replaced in place, one by one, so that ``device`` never holds more than one of them
    in full. What is trained stays as it is.

    Raises:
        BadSpecError: a format does not run on ``device``, or its library is not installed.
    """
    family, dtype = denoiser.family, denoiser.dtype
    encoders = tuple(family.text_encoders) if isinstance(family, Pretrained) else ()
    if spec.format:
        field = "training.memory.quantization.format"
        chosen = quantizer_for(spec.format, spec.backend, device.type, field)
        names = frozen_linears(denoiser.module, spec.exclude, (*_OWN, *encoders))
        replace_layers(denoiser.module, names, chosen, device)
    if spec.text_encoders:
        for encoder in text_encoders(denoiser):
            quantise_text_encoder(encoder, spec, device)
    return replace(denoiser, computed_in=dtype)


def quantise_text_encoder(encoder: nn.Module, spec: QuantizationSpec, device: torch.device) -> None:
    """Round the frozen linear layers of a text encoder, once; ``spec`` says that it is wanted.

    Raises:
        BadSpecError: the format does not run on ``device``, or its library is not installed.
    """
    assert spec.text_encoders  # noqa: S101 -- whoever calls this has looked
    field = "training.memory.quantization.text_encoders"
    chosen = quantizer_for(spec.text_encoders, None, device.type, field)
    replace_layers(encoder, frozen_linears(encoder), chosen, device)


def text_encoders(denoiser: Denoiser) -> list[nn.Module]:
    """The models among the assets that read captions."""
    return [
        part
        for name, part in denoiser.assets.items()
        if name.startswith("text_encoder") and isinstance(part, nn.Module)
    ]


def frozen_linears(
    module: nn.Module, exclude: Iterable[str] = (), parts: Sequence[str] = ()
) -> list[str]:
    """Names of linear layers that are not trained, but those of ``parts`` and what is excluded.

    Layers that their class wants in full precision stay as they are.
    """
    kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
    ends = tuple(f".{end}" for end in exclude)
    return [
        name
        for name, layer in module.named_modules()
        if type(layer) is nn.Linear
        and not layer.weight.requires_grad
        and not any(part in kept for part in name.split("."))
        and name.partition(".")[0] not in parts
        and not f".{original_name(name)}".endswith(ends)
    ]


def original_name(name: str) -> str:
    """The name of a layer before PEFT wrapped it."""
    return name.removesuffix(".base_layer")


def replace_layers(
    module: nn.Module, names: Iterable[str], quantizer: Quantizer, device: torch.device
) -> None:
    """Let ``quantizer`` hold the weights of the layers ``names``."""
    for name in names:
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)  # noqa: S101 -- for mypy: it was listed as one
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, quantizer.quantise(layer, device))
