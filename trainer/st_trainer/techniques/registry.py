"""Which techniques a specification asks for, in the order in which they see each event."""

from st_shared.spec.training import TrainingSpec
from st_trainer.optimizers.registry import OPTIMIZERS
from st_trainer.techniques.ema import Ema
from st_trainer.techniques.masked_loss import MaskedLoss
from st_trainer.techniques.prior_regularisation import PriorRegularisation
from st_trainer.techniques.schedule_free import ScheduleFree
from st_trainer.techniques.sliders import Sliders
from st_trainer.techniques.technique import Technique


def make_techniques(spec: TrainingSpec) -> list[Technique]:
    """The techniques of ``spec``."""
    found: list[Technique] = []
    if any(dataset.regularisation for dataset in spec.datasets):
        found.append(PriorRegularisation())
    if any(dataset.has_masks for dataset in spec.datasets):
        found.append(MaskedLoss())
    if any(dataset.slider_strength is not None for dataset in spec.datasets):
        found.append(Sliders())
    if OPTIMIZERS[spec.optimizer.name].has_average:
        found.append(ScheduleFree())
    elif spec.ema.enabled:
        found.append(Ema(spec.ema))
    return found
