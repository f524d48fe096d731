"""Names of modules in LoRA files: of the denoiser, and of the text encoders trained beside it.

While text encoders are trained they are submodules of the denoiser, so that ``text_encoder.`` and
``text_encoder_2.`` open the names of their modules. Between that and the rest stands
``text_model.`` in every file, but only in some versions and classes of transformers.
"""

import re
from typing import Any

from st_trainer.families.pretrained import Pretrained

_INNER = "text_model."


def part_of(name: str, family: Pretrained[Any]) -> str:
    """The part of the model that the module ``name`` lies in, such as ``unet``."""
    first = name.partition(".")[0]
    return first if first in family.text_encoders else family.denoiser


def name_in_part(name: str, family: Pretrained[Any]) -> str:
    """The end of ``name`` by which PEFT finds the module in its part, in any version."""
    part = part_of(name, family)
    if part == family.denoiser:
        return name
    return name.removeprefix(f"{part}.").removeprefix(_INNER)


def diffusers_name(name: str, family: Pretrained[Any]) -> str:
    """The name in files of Diffusers, such as ``text_encoder.text_model.encoder.layers.0…``."""
    part = part_of(name, family)
    inner = "" if part == family.denoiser else _INNER
    return f"{part}.{inner}{name_in_part(name, family)}"


def comfy_name(name: str, family: Pretrained[Any]) -> str:
    """The name in files of ComfyUI, or of Kohya where the family has those."""
    part, own = part_of(name, family), name_in_part(name, family)
    if part != family.denoiser:
        return f"{family.text_encoders[part]}_{_INNER}{own}".replace(".", "_")
    for ours, theirs in family.comfy_renames:
        own = re.sub(ours, theirs, own)
    if family.kohya_prefix is None:
        return f"{family.comfy_prefix}.{own}"
    return f"{family.kohya_prefix}_{own.replace('.', '_')}"


def is_kohya(name: str, family: Pretrained[Any]) -> bool:
    """Whether ComfyUI wants the module ``name`` in Kohya's form."""
    return family.kohya_prefix is not None or part_of(name, family) != family.denoiser
