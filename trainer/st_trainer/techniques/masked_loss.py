"""Masked loss: a grey picture beside each sample says how much each of its places counts."""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from st_trainer.techniques.technique import Technique

if TYPE_CHECKING:
    from st_trainer.batch import Batch
    from st_trainer.session import Session

_LEAST = 1e-6
"""Sum of a mask that is all but black, so that nothing is divided by 0."""


class MaskedLoss(Technique):
    """Weights the loss of each sample by its mask, so that the weights of a sample average 1."""

    name = "masked_loss"

    def prepare(self, session: "Session", batch: "Batch") -> None:
        """Bring the masks to the size of the latents."""
        masks = session.samples.masks(batch.indexes).to(batch.target.device)
        weights = spread(masks, batch.target)
        batch.weights = weights if batch.weights is None else batch.weights * weights


def spread(masks: Tensor, target: Tensor) -> Tensor:
    """Weights that broadcast to ``target`` ``(B, C, ..., H, W)``, of masks ``(B, 1, H, W)``.

    Each is the mean of the mask over the area of one latent, divided by the mean of the mask.
    """
    height, width = target.shape[-2:]
    area = functional.adaptive_avg_pool2d(masks, (height, width))
    area = area / area.mean(dim=(1, 2, 3), keepdim=True).clamp(min=_LEAST)
    return area.view(len(area), 1, *[1] * (target.dim() - 4), height, width)
