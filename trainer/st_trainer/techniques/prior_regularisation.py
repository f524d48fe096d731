"""Prior regularisation: on some samples the model is to answer as it did before training.

Ruiz et al. 2023, section 3.3, with the frozen model's own answer as the target instead of samples
that it drew.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from st_trainer.objectives.losses import over_samples
from st_trainer.techniques.technique import Technique

if TYPE_CHECKING:
    from st_trainer.batch import Batch
    from st_trainer.session import Session


class PriorRegularisation(Technique):
    """Replaces the target of samples from datasets that are marked so."""

    name = "prior_regularisation"

    def begin(self, session: "Session") -> None:
        """Find out now whether the model before training can still be asked."""
        with session.adapter.off(session.module):
            pass

    def prepare(self, session: "Session", batch: "Batch") -> None:
        """Ask the model before training."""
        chosen = torch.tensor(session.samples.regularised(batch.indexes))
        if not session.agree(bool(chosen.any())):
            return
        with torch.no_grad(), session.adapter.off(session.module), session.accelerator.autocast():
            condition = batch.condition
            if session.spec.adapter.text_encoder:  # it reads otherwise than before, too
                condition = session.encode(batch.captions, batch.indexes)
            answer: Tensor = session.denoiser.predict(batch.noisy, batch.times, condition)
        where = over_samples(chosen.to(batch.target.device), batch.target)
        batch.target = torch.where(where, answer.to(batch.target.dtype), batch.target)
