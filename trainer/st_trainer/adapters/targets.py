"""Which modules of a model an adapter changes."""

from torch import nn

from st_shared.spec.adapter import AdapterSpec
from st_trainer.errors import BadSpecError
from st_trainer.families.pretrained import Pretrained

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def target_names(module: nn.Module, spec: AdapterSpec, family: Pretrained) -> list[str]:  # type: ignore[type-arg]
    """Full names of the linear and convolution modules to adapt, in the order of the model.

    Raises:
        BadSpecError: the preset is unknown, or no module has such a name.
    """
    every = [name for name, each in module.named_modules() if isinstance(each, _KINDS)]
    ends = _ends(spec, family)
    found = [
        name
        for name in every
        if (ends is None or any(_ends_with(name, end) for end in ends))
        and not any(_ends_with(name, end) for end in spec.exclude)
    ]
    if not found:
        raise BadSpecError(
            f"training.adapter: no module of {family.name} ends with {', '.join(ends or ())}; "
            f"names are such as {every[0]}"
        )
    return found


def text_encoder_names(module: nn.Module, spec: AdapterSpec, family: Pretrained) -> list[str]:  # type: ignore[type-arg]
    """Full names of the projections of attention in the text encoders that lie in ``module``."""
    return [
        name
        for name, each in module.named_modules()
        if isinstance(each, nn.Linear)
        and name.startswith(tuple(f"{part}." for part in family.text_encoders))
        and any(_ends_with(name, end) for end in _TEXT_ATTENTION)
        and not any(_ends_with(name, end) for end in spec.exclude)
    ]


def _ends(spec: AdapterSpec, family: Pretrained) -> tuple[str, ...] | None:  # type: ignore[type-arg]
    """Ends of wanted names; None wants all."""
    if spec.targets:
        return tuple(spec.targets)
    if spec.preset in family.lora_presets:
        return family.lora_presets[spec.preset]
    if spec.preset == "all":
        return None
    known = ", ".join(sorted({*family.lora_presets, "all"}))
    raise BadSpecError(
        f"training.adapter.preset: {family.name} has no {spec.preset!r}; it has {known}"
    )


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
