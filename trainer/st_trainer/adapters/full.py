"""Full-rank training: every weight of the model."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor, nn

from st_trainer.adapters.adapter import Adapter
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser, FromScratch
from st_trainer.families.pretrained import Pretrained
from st_trainer.weights import WEIGHTS_NAME, module_tensors, write_weights

_WHOLE = "100000GB"
"""Size up to which Diffusers writes one file."""


class FullRank(Adapter):
    """Trains the weights themselves."""

    def attach(self, denoiser: Denoiser) -> None:
        """Every weight, in fp32."""
        denoiser.module.requires_grad_(requires_grad=True).float()

    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """Weights and buffers."""
        return module_tensors(module)

    def load(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Put weights and buffers back."""
        module.load_state_dict(dict(tensors))

    def off(self, module: nn.Module) -> AbstractContextManager[None]:
        """Refused: the weights before training are not kept."""
        del module
        raise BadSpecError(
            "training.adapter.kind is full, so the model before training is gone, which prior "
            "regularisation needs: use lora or lycoris, or drop datasets.regularisation"
        )

    def write(self, folder: Path, denoiser: Denoiser, step: int) -> Path:
        """A file that loads by itself, or the folder of the part in Diffusers' layout."""
        if isinstance(denoiser.family, FromScratch):
            path = folder / WEIGHTS_NAME
            write_weights(path, denoiser, step)
            return path
        assert isinstance(denoiser.family, Pretrained)  # noqa: S101 -- for mypy: there are two kinds
        part = folder / denoiser.family.denoiser
        module: nn.Module = denoiser.module
        module.save_pretrained(part, max_shard_size=_WHOLE)  # type: ignore[operator]
        return part / "diffusion_pytorch_model.safetensors"
