"""ControlNet: a copy of the network's first part that reads a picture; Zhang et al. 2023."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from st_trainer.adapters.adapter import Adapter, as_floats
from st_trainer.adapters.lora import LORA_NAME, add_matrices, file_of, lora_layers
from st_trainer.adapters.targets import target_names
from st_trainer.caching.encodings import Encodings
from st_trainer.data.samples import Samples
from st_trainer.errors import BadSpecError
from st_trainer.families.components import class_named, load_part
from st_trainer.families.control import CONTROL, NEW
from st_trainer.families.family import Condition, Denoiser
from st_trainer.families.pretrained import Pretrained
from st_trainer.weights import write_tensors

_PLACE = "controlnet"
"""Name of the part inside the module, and of the folder that is written."""
_WHOLE = "100000GB"
"""Size up to which Diffusers writes one file."""


class ControlNet(Adapter):
    """Trains the copy, all of it or matrices in it; the model itself stays as it is."""

    _denoiser: Denoiser

    def attach(self, denoiser: Denoiser) -> None:
        """Copy the first part of the network, whose outputs start at zero, or load one."""
        module, family = denoiser.module, denoiser.family
        if not isinstance(family, Pretrained) or family.controlnet is None:
            raise BadSpecError(f"training.adapter.kind: {family.name} has no ControlNet")
        self._denoiser = denoiser
        module.requires_grad_(requires_grad=False)
        base = self.spec.controlnet.base
        made = (
            load_part(base, family.controlnet, "training.adapter.controlnet.base")
            if base
            else family.controlnet_copy(module, denoiser.assets)
        )
        made.requires_grad_(requires_grad=not self.spec.controlnet.lora).float()
        idle = [each for part in family.controlnet_idle(made) for each in part.modules()]
        if self.spec.controlnet.lora:
            self._add_matrices(made, family, idle)
        for each in idle:
            each.requires_grad_(requires_grad=False)
        module.add_module(_PLACE, made)

    def told(self, samples: Samples, indexes: Sequence[int], encodings: Encodings) -> Condition:
        """The conditioning picture of each sample."""
        return {CONTROL: encodings.control(samples, indexes)}

    def off(self, module: nn.Module) -> AbstractContextManager[None]:
        """Refused: a model without the picture is another, not the one before training."""
        del module
        raise BadSpecError(
            "training.adapter.kind is controlnet, which knows no prior regularisation: drop "
            "datasets.regularisation"
        )

    def write(self, folder: Path, denoiser: Denoiser, step: int) -> Path:
        """A folder that ``from_pretrained`` of its class and the stock pipelines load.

        Matrices are in it by themselves as well, for ``load_lora_adapter`` of a new copy.
        """
        del step
        part = folder / _PLACE
        controlnet: Any = denoiser.module.get_submodule(_PLACE)
        if not self.spec.controlnet.lora:
            controlnet.save_pretrained(part, max_shard_size=_WHOLE)
            return part / "diffusion_pytorch_model.safetensors"
        merged(controlnet).save_pretrained(part, max_shard_size=_WHOLE)
        write_tensors(part / LORA_NAME, self._small(controlnet))
        return part / "diffusion_pytorch_model.safetensors"

    def written(self, module: nn.Module) -> Iterable[str]:
        """All of the copy, which is written whole."""
        every = module.get_submodule(_PLACE).named_parameters(_PLACE)
        return (name for name, each in every if not each.requires_grad)

    def _small(self, controlnet: nn.Module) -> dict[str, Tensor]:
        """What was trained alone: matrices with a scale of 1, and the layers of a new copy."""
        found = dict(file_of(controlnet).folded.tensors)
        if not self.spec.controlnet.base:
            found |= {
                name: each for name, each in controlnet.named_parameters() if name.startswith(NEW)
            }
        return found

    def _add_matrices(
        self, made: nn.Module, family: Pretrained[Any], idle: list[nn.Module]
    ) -> None:
        """Matrices in what was copied; of a new copy, layers without an original learn whole."""
        names = [
            name
            for name in target_names(made, self.spec, family)
            if not name.startswith(NEW) and made.get_submodule(name) not in idle
        ]
        add_matrices(self.spec, made, names)
        if not self.spec.controlnet.base:
            for name, weight in made.named_parameters():
                if name.startswith(NEW):
                    weight.requires_grad = True
        as_floats(made)


def merged(controlnet: Any) -> Any:
    """A copy of ``controlnet`` with its matrices added to the weights beside them."""
    copy = deepcopy(controlnet)
    for _, layer in lora_layers(copy):
        layer.merge()
    plain = class_named(f"diffusers.{type(controlnet).__name__}").from_config(controlnet.config)
    plain.load_state_dict(
        {
            name.replace(".base_layer.", "."): weight
            for name, weight in copy.state_dict().items()
            if "lora_" not in name
        }
    )
    return plain
