"""Groups of parameters that are trained with rates of their own."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.optimizers.registry import OPTIMIZERS, peak_rate

_RATIO = "rate_ratio"
_ENCODERS = "text_encoder"


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], spec: TrainingSpec
) -> list[dict[str, Any]]:
    """The trained ``parameters``, by name, in the groups of an optimiser.

    Raises:
        BadSpecError: the optimiser finds its rate by itself, so that a second one means nothing.
    """
    rate = spec.adapter.text_encoder_learning_rate
    if rate is None:
        return [{"params": list(parameters.values())}]
    if OPTIMIZERS[spec.optimizer.name].finds_rate:
        raise BadSpecError(
            f"training.adapter.text_encoder_learning_rate: {spec.optimizer.name} finds its rate by "
            "itself: drop it"
        )
    encoders = [each for name, each in parameters.items() if name.startswith(_ENCODERS)]
    others = [each for name, each in parameters.items() if not name.startswith(_ENCODERS)]
    return [{"params": others}, {"params": encoders, _RATIO: rate / peak_rate(spec)}]


def rate_of(group: Mapping[str, Any], rate: float) -> float:
    """The rate of ``group`` while that of the run is ``rate``."""
    return rate * float(group.get(_RATIO, 1.0))
