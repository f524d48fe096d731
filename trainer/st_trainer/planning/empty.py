"""A model as its configuration files describe it, without a value in its weights.

Weights are neither read nor downloaded; parts are built by the code that a run uses, from their
``config.json`` alone.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.families import components
from st_trainer.families.family import Denoiser, FromScratch
from st_trainer.families.registry import REGISTRY
from st_trainer.weights import load_base, model_config

_CLIP_LENGTH = 77


def empty_denoiser(spec: TrainingSpec) -> Denoiser:
    """The model of ``spec``, its weights on the device ``meta``; tables of its code have values.

    Raises:
        BadSpecError: a configuration file is missing, or does not fit its class.
    """
    family, config = REGISTRY[spec.model.family], model_config(spec.model)
    if isinstance(family, FromScratch):
        assets = family.assets(config, [])
        return Denoiser(family, config, assets, family.build(config, assets))
    with components.built_by(_empty_part):
        return load_base(spec.model)


def fill(denoiser: Denoiser, dtype: torch.dtype) -> None:
    """Give ``denoiser`` new weights of its shapes, without values; within a ``FakeTensorMode``.

    Frozen ones are of ``dtype``, but for those that their class wants in full precision.
    """
    kind = torch.float32 if isinstance(denoiser.family, FromScratch) else dtype
    for part in (denoiser.module, *denoiser.assets.values()):
        if isinstance(part, nn.Module):
            _fill(part, kind)


def _fill(module: nn.Module, dtype: torch.dtype) -> None:
    kept = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name, part in module.named_modules():
        for own, each in list(part.named_parameters(recurse=False)):
            whole = any(piece in kept for piece in f"{name}.{own}".split("."))
            own_type = each.requires_grad or whole or not each.is_floating_point()
            empty = torch.empty(each.shape, dtype=each.dtype if own_type else dtype)
            setattr(part, own, nn.Parameter(empty, requires_grad=each.requires_grad))


def _empty_part(base: str, name: str, place: str, _dtype: torch.dtype) -> Any:
    """What ``from_pretrained`` would give, without weights and without words."""
    kind = components.class_named(place)
    if "Tokenizer" in place:
        return _Tokens()
    if "ImageProcessor" in place:
        return _Pixels(_read(kind.from_pretrained, base, name))
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        return _read(kind.from_pretrained, base, name)
    with init_empty_weights(include_buffers=False):
        made = _built(kind, base, name)
    made.requires_grad_(requires_grad=False).eval()
    return made


def _built(kind: Any, base: str, name: str) -> nn.Module:
    """A model of Diffusers or transformers from its configuration."""
    if hasattr(kind, "load_config"):
        made: nn.Module = kind.from_config(_read(kind.load_config, base, name))
    else:
        made = kind(_read(kind.config_class.from_pretrained, base, name))
    return made


def _read(read: Callable[..., Any], base: str, name: str) -> Any:
    """What ``read`` finds in the folder ``name`` of ``base``.

    Raises:
        BadSpecError: nothing, or what does not fit.
    """
    try:
        return read(base, subfolder=name, **components.offline(base))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadSpecError(
            f"training.model.base: the configuration of {name} of {base} cannot be read: "
            f"{type(error).__name__}: {error}"
        ) from error


class _Tokens:
    """Stands in for a tokenizer: as many tokens as there may be, of no word."""

    model_max_length = _CLIP_LENGTH

    def __call__(self, texts: Any, **options: Any) -> Any:
        """Ids and mask ``(B, length)``."""
        count = 1 if isinstance(texts, str) else len(texts)
        length = options.get("max_length") or self.model_max_length
        ids: Tensor = torch.zeros(count, length, dtype=torch.long)
        return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))


class _Pixels:
    """Stands in for an image processor: pixels of its size, of no picture."""

    def __init__(self, processor: Any) -> None:
        self._size = (processor.crop_size["height"], processor.crop_size["width"])

    def __call__(self, images: Any, **_options: Any) -> Any:
        """Pixels ``(B, 3, H, W)``."""
        return SimpleNamespace(pixel_values=torch.empty(len(images), 3, *self._size))
