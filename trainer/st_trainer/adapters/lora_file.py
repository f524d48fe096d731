"""LoRA files: the layouts of Diffusers and of ComfyUI and Kohya, read and written.

| layout | key of a matrix | scale |
|---|---|---|
| Diffusers | ``transformer.blocks.0.to_q.lora_A.weight`` | PEFT's options in the metadata |
| ComfyUI | ``diffusion_model.blocks.0.to_q.lora_A.weight`` | ``….alpha``, divided by the rank |
| Kohya | ``lora_unet_blocks_0_to_q.lora_down.weight`` | ``….alpha``, divided by the rank |

ComfyUI wants Kohya's names for UNets. For transformers, Kohya's are of fused projections, which
``lora_fused`` is about.

Text encoders have ``text_encoder`` before their keys in Diffusers' layout, ``lora_te`` in Kohya's;
ComfyUI reads both, and gets the form that the denoiser has in its file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from st_shared.spec.adapter import LoraLayout
from st_trainer.adapters.lora_fused import fused, parted
from st_trainer.adapters.lora_names import (
    comfy_name,
    diffusers_name,
    is_kohya,
    is_text,
    kohya_text_name,
    name_in_part,
    part_of,
)
from st_trainer.errors import BadSpecError
from st_trainer.families.components import class_named
from st_trainer.families.pretrained import Pretrained
from st_trainer.weights import write_tensors

METADATA_KEY = "lora_adapter_metadata"
"""Where Diffusers keeps PEFT's options in a file."""

_KOHYA = {"lora_A": "lora_down", "lora_B": "lora_up"}
_OLD = {"lora_down": "lora_A", "lora_up": "lora_B", "lora.down": "lora_A", "lora.up": "lora_B"}
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "base_model.model.")
_MAGNITUDE = "lora_magnitude_vector"


@dataclass(frozen=True)
class LoraFile:
    """The content of a LoRA file, whatever its layout."""

    tensors: Mapping[str, Tensor]
    """Keys as PEFT has them, without the name of the part: ``blocks.0.to_q.lora_A.weight``."""
    alphas: Mapping[str, float]
    """Scale times rank of each module."""

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each module."""
        return {name: len(self.tensors[f"{name}.lora_A.weight"]) for name in self.alphas}

    @property
    def folded(self) -> "LoraFile":
        """The same with a scale of 1 everywhere, multiplied into the second matrices."""
        tensors = dict(self.tensors)
        for name, rank in self.ranks.items():
            key = f"{name}.lora_B.weight"
            tensors[key] = tensors[key] * (self.alphas[name] / rank)
        return LoraFile(tensors, {name: float(rank) for name, rank in self.ranks.items()})

    @property
    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Both matrices of each module."""
        ends = ("lora_A", "lora_B")
        return {
            name: tuple(self.tensors[f"{name}.{end}.weight"].cpu() for end in ends)  # type: ignore[misc]
            for name in self.alphas
        }

    @property
    def has_dora(self) -> bool:
        """Whether magnitudes are kept apart; Liu et al. 2024."""
        return any(_MAGNITUDE in name for name in self.tensors)


def write_lora(
    path: Path, file: LoraFile, module: nn.Module, family: Pretrained[Any], layout: LoraLayout
) -> None:
    """Write ``file``, of what was learned beside ``module``, at ``path``, whole or not at all."""
    if layout == "kohya" and family.kohya_modules:
        write_tensors(path, _kohya(file, module, family))
        return
    if layout == "comfyui" and family.comfy_reads_diffusers:
        file, layout = file.folded, "diffusers"
    if layout == "diffusers":
        named = {_diffusers_key(key, family): each for key, each in file.tensors.items()}
        write_tensors(
            path, named, {METADATA_KEY: json.dumps(_options(file, family), sort_keys=True)}
        )
        return
    if family.comfy_alphas:
        alphas = {f"{name}.alpha": torch.tensor(alpha) for name, alpha in file.alphas.items()}
        every = {**file.tensors, **alphas}
    else:
        every = {**file.folded.tensors}
    named = {_comfy_key(key, family): each for key, each in every.items()}
    columns = {key: each[:, None] for key, each in named.items() if key.endswith("dora_scale")}
    write_tensors(path, named | columns)


def _kohya(file: LoraFile, module: nn.Module, family: Pretrained[Any]) -> dict[str, Tensor]:
    """Fused projections of the denoiser; text encoders module by module."""
    text = {name for name in file.alphas if is_text(name, family)}
    pairs = file.folded.pairs
    found = fused(
        {name: pair for name, pair in pairs.items() if name not in text},
        module,
        family.kohya_modules,
    )
    for name in text:
        key = kohya_text_name(name, family)
        found[f"{key}.lora_down.weight"], found[f"{key}.lora_up.weight"] = pairs[name]
        found[f"{key}.alpha"] = torch.tensor(float(file.ranks[name]))
    return found


def read_lora(path: Path, module: nn.Module, family: Pretrained[Any]) -> LoraFile:
    """The LoRA at ``path``, of any layout; a folder stands for the file of the usual name in it.

    Raises:
        BadSpecError: it cannot be read, or does not fit ``module``.
    """
    file = path / "pytorch_lora_weights.safetensors" if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadSpecError(f"training.adapter.continue_from: {file}: {error}") from None
    tensors = parted(tensors, module, family.kohya_modules)
    names = {name for name, _ in module.named_modules()}
    found = _plain(tensors, names, family)
    if not _modules(found) <= names:
        found = _plain(_converted(file, family), names, family)
    unknown = sorted(_modules(found) - names)
    if unknown or not found:
        raise BadSpecError(
            f"training.adapter.continue_from: {file} does not fit {family.name}: "
            + (f"it adapts {unknown[0]}" if unknown else "it holds no LoRA of it")
        )
    return _scaled(found, json.loads(metadata.get(METADATA_KEY, "{}")), family)


def _options(file: LoraFile, family: Pretrained[Any]) -> dict[str, Any]:
    """PEFT's options of each part, as Diffusers looks for them when it loads the file."""
    found: dict[str, Any] = {}
    for part in dict.fromkeys(part_of(name, family) for name in file.alphas):
        names = [name for name in file.alphas if part_of(name, family) == part]
        ranks = {name_in_part(name, family): file.ranks[name] for name in names}
        alphas = {name_in_part(name, family): file.alphas[name] for name in names}
        rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
        options = {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {name: each for name, each in ranks.items() if each != rank},
            "alpha_pattern": {name: each for name, each in alphas.items() if each != alpha},
            "target_modules": sorted(ranks),
            "use_dora": file.has_dora,
            "lora_bias": False,
        }
        found |= {f"{part}.{key}": value for key, value in options.items()}
    return found


def _diffusers_key(key: str, family: Pretrained[Any]) -> str:
    module, dot, rest = _split(key)
    return f"{diffusers_name(module, family)}{dot}{rest}"


def _comfy_key(key: str, family: Pretrained[Any]) -> str:
    """A key of PEFT as ComfyUI wants it; magnitudes are ``dora_scale`` there."""
    module, _, rest = _split(key)
    rest = "dora_scale" if rest.startswith(_MAGNITUDE) else rest
    named = comfy_name(module, family)
    if not is_kohya(module, family):
        return f"{named}.{rest}"
    matrix, _, end = rest.partition(".")
    return ".".join(filter(None, (named, _KOHYA.get(matrix, matrix), end)))


def _split(key: str) -> tuple[str, str, str]:
    """Module, a dot, and the rest: ``lora_A.weight``, ``alpha``, ..."""
    for mark in (".lora_", ".lora.", ".alpha", ".dora_scale"):
        place = key.rfind(mark)
        if place >= 0:
            return key[:place], ".", key[place + 1 :]
    return key, "", ""


def _plain(
    tensors: Mapping[str, Tensor], names: set[str], family: Pretrained[Any]
) -> dict[str, Tensor]:
    """Keys as PEFT has them, alphas included; keys of other parts are left out."""
    ours = {form(name, family): name for form in (diffusers_name, comfy_name) for name in names}
    ours |= {kohya_text_name(name, family): name for name in names if is_text(name, family)}
    found = {}
    for key, tensor in tensors.items():
        module, dot, rest = _split(key)
        if not dot or (module not in ours and key.startswith(("text_encoder", "lora_te"))):
            continue
        module = ours.get(module) or _bare(module, family)
        for old, new in _OLD.items():
            rest = rest.replace(old, new)
        if rest == "dora_scale":
            rest, tensor = _MAGNITUDE, tensor.flatten()  # noqa: PLW2901 -- a column there
        found[f"{module}.{rest}"] = tensor
    return found


def _bare(name: str, family: Pretrained[Any]) -> str:
    """A name of the denoiser without what programs put before it."""
    for prefix in (f"{family.denoiser}.", *_PREFIXES):
        name = name.removeprefix(prefix)
    return name


def _modules(tensors: Mapping[str, Tensor]) -> set[str]:
    return {_split(key)[0] for key in tensors}


def _converted(file: Path, family: Pretrained[Any]) -> Mapping[str, Tensor]:
    """What Diffusers makes of a file of another program."""
    pipeline = class_named(family.pipeline)
    if not hasattr(pipeline, "lora_state_dict"):
        return {}
    found = pipeline.lora_state_dict(str(file.parent), weight_name=file.name)
    state: Mapping[str, Tensor] = found[0] if isinstance(found, tuple) else found
    return state


def _scaled(
    tensors: dict[str, Tensor], metadata: dict[str, Any], family: Pretrained[Any]
) -> LoraFile:
    """Matrices and alphas apart; without an alpha the scale is 1."""
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        module, _, rest = _split(key)
        if rest != "lora_A.weight":
            continue
        part, own = part_of(module, family), name_in_part(module, family)
        usual = metadata.get(f"{part}.lora_alpha", len(tensor))
        alphas[module] = float(metadata.get(f"{part}.alpha_pattern", {}).get(own, usual))
        if f"{module}.alpha" in tensors:
            alphas[module] = float(tensors[f"{module}.alpha"])
    matrices = {key: each for key, each in tensors.items() if not key.endswith(".alpha")}
    return LoraFile(matrices, alphas)
