"""LoRA: low-rank matrices beside frozen weights, by PEFT; Hu et al. 2021, equation 3."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from st_shared.spec.adapter import AdapterSpec
from st_trainer.adapters.adapter import Adapter, as_floats, copy_into
from st_trainer.adapters.loftq import round_base, start_from
from st_trainer.adapters.lora_file import LoraFile, read_lora, write_lora
from st_trainer.adapters.lora_fused import check_fusible
from st_trainer.adapters.lora_names import is_text, part_of
from st_trainer.adapters.targets import target_names, text_encoder_names
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.families.pretrained import Pretrained

LORA_NAME = "pytorch_lora_weights.safetensors"
"""The name under which Diffusers looks for a LoRA in a folder."""

_NAME = "default"
_LOFTQ = "loftq"
_TAKEN_OUT = ("olora", "pissa")
"""Ways to start that take their matrices out of the frozen weights."""


class Lora(Adapter):
    """Low-rank matrices, with the variants that PEFT knows."""

    def __init__(self, spec: AdapterSpec) -> None:
        super().__init__(spec)
        self._start: dict[str, Tensor] = {}
        """The first values, where they were taken out of the frozen weights."""

    def attach(self, denoiser: Denoiser) -> None:
        """Add the matrices to the wanted modules, or to those of the file to go on from."""
        from peft import inject_adapter_in_model  # noqa: PLC0415 -- seconds

        module, family = denoiser.module, _pretrained(denoiser)
        module.requires_grad_(requires_grad=False)
        names = target_names(module, self.spec, family)
        if self.spec.text_encoder:
            for part in family.text_encoders:  # so that they are trained, kept and averaged with it
                module.add_module(part, denoiser.assets[part])
            names += text_encoder_names(module, self.spec, family)
        before = _read(self.spec, denoiser) if self.spec.continue_from else None
        names = list(before.alphas) if before else names
        if self.spec.layout == "kohya" and family.kohya_modules:
            dora = self.spec.dora or bool(before and before.has_dora)
            own = [name for name in names if not is_text(name, family)]
            check_fusible(own, family.kohya_modules, dora=dora)
        lost = round_base(module) if self.spec.init == _LOFTQ else {}
        inject_adapter_in_model(_config(self.spec, names, before), module, adapter_name=_NAME)
        as_floats(module)
        if before:
            copy_into(lora_tensors(module), before.tensors)
        else:
            for name, layer in lora_layers(module):
                if name in lost:
                    start_from(layer, lost[name], _NAME)
        if self.spec.init in _TAKEN_OUT and not before:
            self._start = {n: t.detach().clone() for n, t in lora_tensors(module).items()}

    @contextmanager
    def off(self, module: nn.Module) -> Iterator[None]:
        """The frozen weights alone."""
        if self._start or self.spec.init == _LOFTQ:
            raise BadSpecError(
                f"training.adapter.init {self.spec.init} changes the frozen weights, so prior "
                "regularisation cannot ask them: use init default or gaussian"
            )
        for _, layer in lora_layers(module):
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for _, layer in lora_layers(module):
                layer.enable_adapters(True)

    def strengthen(self, module: nn.Module, strength: float) -> None:
        """Scale what the matrices add."""
        for _, layer in lora_layers(module):
            layer.set_scale(_NAME, strength)

    def write(self, folder: Path, denoiser: Denoiser, step: int) -> Path:
        """One safetensors file in the layout of the specification."""
        del step
        path = folder / LORA_NAME
        family, module = _pretrained(denoiser), denoiser.module
        write_lora(path, self.file(module), module, family, self.spec.layout)
        return path

    def file(self, module: nn.Module) -> LoraFile:
        """The matrices as a file holds them: added to the weights of the base as it was."""
        file = file_of(module)
        if not self._start:
            return file
        return LoraFile(
            {name: _joined(name, each, self._start[name]) for name, each in file.tensors.items()},
            {name: 2 * alpha for name, alpha in file.alphas.items()},
        )


def add_matrices(spec: AdapterSpec, module: nn.Module, names: list[str]) -> None:
    """Add the matrices of ``spec`` to the modules ``names`` of ``module``."""
    from peft import inject_adapter_in_model  # noqa: PLC0415 -- seconds

    inject_adapter_in_model(_config(spec, names, None), module, adapter_name=_NAME)


def lora_layers(module: nn.Module) -> list[tuple[str, Any]]:
    """PEFT's layers by the name of the module that they stand in for."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415 -- seconds

    return [
        (name, each) for name, each in module.named_modules() if isinstance(each, BaseTunerLayer)
    ]


def file_of(module: nn.Module) -> LoraFile:
    """The matrices of ``module`` as they are."""
    tensors = {name: each.detach() for name, each in lora_tensors(module).items()}
    alphas = {name: layer.scaling[_NAME] * layer.r[_NAME] for name, layer in lora_layers(module)}
    return LoraFile(tensors, alphas)


def lora_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The matrices, named as PEFT's files name them: ``blocks.0.to_q.lora_A.weight``."""
    from peft import get_peft_model_state_dict  # noqa: PLC0415 -- seconds

    own = dict(module.named_parameters())
    named: dict[str, Tensor] = get_peft_model_state_dict(
        module, {name: each for name, each in own.items() if each.requires_grad}, adapter_name=_NAME
    )
    return named


def _joined(name: str, now: Tensor, start: Tensor) -> Tensor:
    """``B A - B0 A0`` as one pair of twice the rank: what was learned, without the start."""
    if "lora_A" in name:
        return torch.cat([now, start.to(now.device)], dim=0)
    return torch.cat([now, -start.to(now.device)], dim=1)


def _read(spec: AdapterSpec, denoiser: Denoiser) -> LoraFile:
    family = _pretrained(denoiser)
    file = read_lora(Path(str(spec.continue_from)), denoiser.module, family)
    missing = set(family.text_encoders) - {part_of(name, family) for name in file.alphas}
    if spec.text_encoder and missing:
        raise BadSpecError(
            f"training.adapter.continue_from: {spec.continue_from} holds nothing of "
            f"{min(missing)}: drop adapter.text_encoder"
        )
    return file


def _config(spec: AdapterSpec, names: list[str], before: LoraFile | None) -> Any:
    from peft import LoraConfig  # noqa: PLC0415 -- seconds

    ranks = dict(spec.rank_pattern) | (before.ranks if before else {})
    alphas = dict(spec.alpha_pattern) | dict(before.alphas if before else {})
    ours = before is not None or spec.init in {"default", _LOFTQ}
    missing = {name: float(rank) for name, rank in ranks.items() if name not in alphas}
    return LoraConfig(
        r=spec.rank,
        lora_alpha=cast("int", spec.alpha or spec.rank),  # any number will do
        lora_dropout=spec.dropout,
        use_dora=spec.dora or bool(before and before.has_dora),
        use_rslora=spec.rslora and not before,
        init_lora_weights=True if ours else cast("Any", spec.init),
        target_modules=names,
        rank_pattern={f"^{name}" if name in names else name: r for name, r in ranks.items()},
        alpha_pattern={
            f"^{name}" if name in names else name: alpha
            for name, alpha in (alphas | ({} if spec.alpha else missing)).items()
        },
    )


def _pretrained(denoiser: Denoiser) -> Pretrained[Any]:
    if not isinstance(denoiser.family, Pretrained):
        raise BadSpecError(
            f"training.adapter.kind: family {denoiser.family.name} is trained in full only"
        )
    return denoiser.family
