"""Adapters by the name that the specification gives them."""

from st_shared.spec.training import TrainingSpec
from st_trainer.adapters.adapter import Adapter
from st_trainer.adapters.controlnet import ControlNet
from st_trainer.adapters.full import FullRank
from st_trainer.adapters.lora import Lora
from st_trainer.adapters.lycoris import Lycoris

ADAPTERS: dict[str, type[Adapter]] = {
    "controlnet": ControlNet,
    "full": FullRank,
    "lora": Lora,
    "lycoris": Lycoris,
}


def make_adapter(spec: TrainingSpec) -> Adapter:
    """The adapter that ``spec`` asks for, not attached yet."""
    return ADAPTERS[spec.adapter_kind](spec.adapter)
