"""Weights as safetensors files that load by themselves: the metadata says what they belong to."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from st_shared.durable import move_durably, sha256_of
from st_shared.spec.families import FAMILIES, ModelSpec
from st_shared.spec.section import Section
from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Assets, Denoiser, FromScratch
from st_trainer.families.pretrained import Pretrained
from st_trainer.families.registry import REGISTRY

WEIGHTS_NAME = "weights.safetensors"

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of frozen weights by ``precision``."""

_METADATA_KEY = "st_train"


def write_weights(path: Path, denoiser: Denoiser, step: int) -> None:
    """Write the weights of ``denoiser`` at ``path``, whole or not at all."""
    write_tensors(path, module_tensors(denoiser.module), description(denoiser, step))


def description(denoiser: Denoiser, step: int) -> dict[str, str]:
    """Metadata from which ``load_denoiser`` rebuilds a model that was made from scratch."""
    described = {
        "family": denoiser.family.name,
        "config": denoiser.config.model_dump(mode="json"),
        "assets": denoiser.assets,
        "step": step,
    }
    # One key only: safetensors writes several in an order that changes from run to run.
    return {_METADATA_KEY: json.dumps(described, sort_keys=True)}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write ``tensors`` at ``path``, whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, aside, metadata)
    aside.chmod(0o644)  # safetensors makes files that only their owner can read
    move_durably(aside, path)


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Everything that ``module`` must get back to be the same."""
    return dict(module.state_dict())


def load_denoiser(path: Path) -> Denoiser:
    """The model in the file ``path``, or in ``weights.safetensors`` of the folder ``path``.

    Nothing in the file is executed: tensors come from safetensors, the rest from JSON.

    Raises:
        BadSpecError: the file is missing, damaged, or was not written by ``st-train``.
    """
    file = path / WEIGHTS_NAME if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadSpecError(f"cannot load weights from {file}: {error}") from None
    try:
        return _rebuilt(metadata, tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BadSpecError(
            f"{file} does not hold a model that st-train wrote: {type(error).__name__}: {error}"
        ) from None


def open_denoiser(spec: TrainingSpec, captions: Callable[[], Iterable[str]]) -> Denoiser:
    """The model that training starts from: pretrained, of an earlier run, or new.

    Random weights follow from ``spec.seed``; ``captions`` are asked for by a new model alone.

    Raises:
        BadSpecError: the base cannot be loaded, or it is not what the specification says.
    """
    family, config = REGISTRY[spec.model.family], model_config(spec.model)
    if spec.model.base:
        torch.manual_seed(spec.seed)
        return load_base(spec.model, DTYPES[spec.precision])
    assert isinstance(family, FromScratch)  # noqa: S101 -- the specification has seen to it
    torch.manual_seed(spec.seed)
    assets = family.assets(config, captions())
    return Denoiser(family, config, assets, family.build(config, assets))


def load_base(model: ModelSpec, dtype: torch.dtype = torch.float32) -> Denoiser:
    """The model at ``model.base``, checked against its checksum, family and options.

    ``dtype`` is for pretrained families. For others, options that ``model.config`` leaves out are
    those of the file.

    Raises:
        BadSpecError: it cannot be loaded, or it is not what the specification says.
    """
    family = REGISTRY[model.family]
    if isinstance(family, Pretrained):
        return family.load(str(model.base), model_config(model), dtype)
    return _load_own(model)


def _load_own(model: ModelSpec) -> Denoiser:
    path = Path(str(model.base))
    file = path / WEIGHTS_NAME if path.is_dir() else path
    if not file.is_file():
        raise BadSpecError(f"training.model.base: no file {file}; give weights that exist")
    if model.base_sha256 and sha256_of(file) != model.base_sha256:
        raise BadSpecError(
            f"training.model.base_sha256: {file} has another checksum, {sha256_of(file)}"
        )
    base = load_denoiser(file)
    if base.family.name != model.family:
        raise BadSpecError(
            f"training.model.family: {file} holds a {base.family.name}, not a {model.family}"
        )
    _check_options(model, base.config)
    return base


def _check_options(model: ModelSpec, config: Section) -> None:
    wanted = type(config).model_validate(model.config)
    for name in sorted(wanted.model_fields_set):
        asked, found = getattr(wanted, name), getattr(config, name)
        if asked != found:
            raise BadSpecError(
                f"training.model.config.{name}: {asked} is asked for, but the base has {found}; "
                "leave it out to take the base's"
            )


def _rebuilt(metadata: dict[str, str], tensors: dict[str, Tensor]) -> Denoiser:
    described = json.loads(metadata[_METADATA_KEY])
    family = REGISTRY[described["family"]]
    if not isinstance(family, FromScratch):
        raise ValueError(f"{family.name} is not built from scratch")  # noqa: TRY004 -- bad data
    config = model_config(ModelSpec(family=family.name, config=described["config"]))
    assets: Assets = described["assets"]
    module = family.build(config, assets)
    module.load_state_dict(tensors)
    return Denoiser(family, config, assets, module.eval())


def model_config(model: ModelSpec) -> Section:
    """The options of the family, checked, with its defaults filled in."""
    return FAMILIES[model.family].config.model_validate(model.config)
