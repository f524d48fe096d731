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


def is_text(name: str, family: Pretrained[Any]) -> bool:
    """Whether the module ``name`` lies in a text encoder."""
    return part_of(name, family) != family.denoiser


def kohya_text_name(name: str, family: Pretrained[Any]) -> str:
    """Kohya's name for a module of a text encoder, such as ``lora_te1_text_model_encoder_…``."""
    own = f"{family.text_encoders[part_of(name, family)]}.{_INNER}{name_in_part(name, family)}"
    return own.replace(".", "_")


def comfy_name(name: str, family: Pretrained[Any]) -> str:
    """The name in files of ComfyUI, or of Kohya where the family has those."""
    if is_text(name, family):
        if is_kohya(name, family):
            return kohya_text_name(name, family)
        return diffusers_name(name, family)
    own = name
    for ours, theirs in family.comfy_renames:
        own = re.sub(ours, theirs, own)
    if family.kohya_prefix is None:
        return f"{family.comfy_prefix}.{own}"
    return f"{family.kohya_prefix}_{own.replace('.', '_')}"


def is_kohya(name: str, family: Pretrained[Any]) -> bool:
    """Whether a file for ComfyUI has the module ``name`` in Kohya's form.

    ComfyUI reads text encoders in both forms. A file whose denoiser has the names of Diffusers has
    them throughout: Diffusers takes one with anything of Kohya's for Kohya's altogether.
    """
    if is_text(name, family):
        return family.comfy_prefix != family.denoiser
    return family.kohya_prefix is not None
