"""ControlNet: a copy of the network's first half that reads a picture; Zhang et al. 2023."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from st_trainer.adapters.adapter import Adapter
from st_trainer.data.samples import Samples
from st_trainer.errors import BadSpecError
from st_trainer.families.components import class_named
from st_trainer.families.family import Condition, Denoiser
from st_trainer.families.pretrained import Pretrained
from st_trainer.families.unet import CONTROL

_PLACE = "controlnet"
"""Name of the part inside the module, and of the folder that is written."""
_WIDTHS = (16, 32, 96, 256)
"""Channels of the layers that bring pictures to the size of latents, each half as large."""
_WHOLE = "100000GB"
"""Size up to which Diffusers writes one file."""


class ControlNet(Adapter):
    """Trains every weight of the copy; the model itself stays as it is."""

    def attach(self, denoiser: Denoiser) -> None:
        """Copy the first half of the network; its outputs start at zero."""
        module, family = denoiser.module, denoiser.family
        if not isinstance(family, Pretrained) or family.controlnet is None:
            raise BadSpecError(f"training.adapter.kind: {family.name} has no ControlNet")
        halvings = len(denoiser.assets["vae"].config.block_out_channels) - 1
        module.requires_grad_(requires_grad=False)
        made: nn.Module = class_named(family.controlnet).from_unet(
            module, conditioning_embedding_out_channels=_WIDTHS[: halvings + 1]
        )
        module.add_module(_PLACE, made.requires_grad_(requires_grad=True).float())

    def told(self, samples: Samples, indexes: Sequence[int]) -> Condition:
        """The conditioning picture of each sample."""
        return {CONTROL: samples.conditioning(indexes)}

    def off(self, module: nn.Module) -> AbstractContextManager[None]:
        """Refused: a model without the picture is another, not the one before training."""
        del module
        raise BadSpecError(
            "training.adapter.kind is controlnet, which knows no prior regularisation: drop "
            "datasets.regularisation"
        )

    def write(self, folder: Path, denoiser: Denoiser, step: int) -> Path:
        """A folder that ``ControlNetModel.from_pretrained`` and the stock pipelines load."""
        del step
        part = folder / _PLACE
        controlnet: Any = denoiser.module.get_submodule(_PLACE)
        controlnet.save_pretrained(part, max_shard_size=_WHOLE)
        return part / "diffusion_pytorch_model.safetensors"
