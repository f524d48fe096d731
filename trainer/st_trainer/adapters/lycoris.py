"""LyCORIS: LoHa, LoKr, OFT and their kin; Yeh et al. 2024."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from st_trainer.adapters.adapter import Adapter
from st_trainer.adapters.targets import target_names
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.families.pretrained import Pretrained
from st_trainer.weights import write_tensors

_PLACE = "lycoris"
"""Name of the network inside the module, so that it moves, trains and is found with it."""
_NAME = "lycoris.safetensors"


_BESIDE = {"bypass_mode": True}
"""Tells lycoris-lora to add to a layer's answer, not to its weights."""


def _has_fewer_bits(module: nn.Module, names: list[str]) -> bool:
    """Whether weights of the layers ``names`` are quantised, so that nothing is added to them."""
    return any(type(module.get_submodule(name).weight) is not nn.Parameter for name in names)


def norm_names(module: nn.Module) -> list[str]:
    """Full names of the normalisation layers that have weights."""
    return [
        name
        for name, each in module.named_modules()
        if "Norm" in type(each).__name__ and isinstance(getattr(each, "weight", None), Tensor)
    ]


class Lycoris(Adapter):
    """A network of lycoris-lora that hooks into the modules."""

    hooks_into_layers = True

    def attach(self, denoiser: Denoiser) -> None:
        """Make the network and hook it in."""
        from lycoris import create_lycoris  # noqa: PLC0415 -- seconds
        from lycoris.config import PRESET  # noqa: PLC0415

        module, family, spec = denoiser.module, denoiser.family, self.spec
        if not isinstance(family, Pretrained):
            raise BadSpecError(f"training.adapter.kind: {family.name} is trained in full only")
        module.requires_grad_(requires_grad=False)
        names = target_names(module, spec, family)
        if spec.lycoris.norms:
            names += norm_names(module)
        PRESET[_PLACE] = {
            "enable_conv": True,
            "target_module": [],
            "target_name": [f"^{re.escape(name)}$" for name in names],
            "module_algo_map": {},
            "name_algo_map": {},
            "exclude_name": [],
            "use_fnmatch": False,
        }
        try:
            network = create_lycoris(
                module,
                linear_dim=spec.rank,
                linear_alpha=spec.alpha or spec.rank,
                dropout=spec.dropout,
                dora_wd=spec.dora,
                algo=spec.lycoris.algorithm,
                factor=spec.lycoris.factor,
                train_norm=spec.lycoris.norms,
                preset=_PLACE,
                **(_BESIDE if _has_fewer_bits(module, names) else {}),
                **spec.lycoris.options,
            )
        except (ValueError, TypeError, KeyError, AssertionError) as error:
            raise BadSpecError(
                f"training.adapter.lycoris: {spec.lycoris.algorithm} does not fit: {error}"
            ) from error
        network.apply_to()
        module.add_module(_PLACE, network.float())
        if spec.lycoris.algorithm == "tlora":
            self.listener = self._mask

    def _mask(self, shares: Tensor) -> None:
        """Let T-LoRA use the ranks of this time; Soboleva et al. 2025.

        Raises:
            BadSpecError: samples of one batch have different times, which it cannot tell apart.
        """
        from lycoris.modules.tlora import (  # noqa: PLC0415 -- seconds
            compute_timestep_mask,
            set_timestep_mask,
        )

        if (shares != shares[0]).any():
            raise BadSpecError(
                "training.batch_size: tlora has one mask of ranks for a whole batch: set it to 1"
            )
        told = self.spec.lycoris
        share, rank = float(shares[0]), self.spec.rank
        set_timestep_mask(
            compute_timestep_mask(share, 1.0, rank, min(told.min_rank, rank), told.rank_power)
        )

    @contextmanager
    def off(self, module: nn.Module) -> Iterator[None]:
        """The frozen weights alone."""
        network: Any = getattr(module, _PLACE)
        before = network.multiplier
        network.set_multiplier(0.0)
        try:
            yield
        finally:
            network.set_multiplier(before)

    def strengthen(self, module: nn.Module, strength: float) -> None:
        """Scale what the network adds."""
        network: Any = getattr(module, _PLACE)
        network.set_multiplier(strength)

    def write(self, folder: Path, denoiser: Denoiser, step: int) -> Path:
        """One file with LyCORIS's own keys, which ComfyUI reads: ``lycoris_blocks_0_to_q…``."""
        del step
        path = folder / _NAME
        network: nn.Module = getattr(denoiser.module, _PLACE)
        write_tensors(path, dict(network.state_dict()))
        return path
