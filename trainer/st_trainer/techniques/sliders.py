"""Sliders: one adapter learns opposites, each with its own sign; Gandikota et al. 2023.

The loss is the ordinary one. While samples of one side are learned, what the adapter adds is
multiplied by the strength of their dataset; so turning it the other way gives the other side.
"""

from typing import TYPE_CHECKING

from st_trainer.techniques.technique import Technique

if TYPE_CHECKING:
    from st_trainer.batch import Batch
    from st_trainer.session import Session


class Sliders(Technique):
    """Scales the adapter for each batch, whose samples all have one strength."""

    name = "sliders"

    def prepare(self, session: "Session", batch: "Batch") -> None:
        """Let the adapter count as much as the samples ask for."""
        session.adapter.strengthen(session.module, session.samples.strength(batch.indexes))

    def stepped(self, session: "Session") -> None:
        """Let it count as it is, for samples that are drawn and what is written."""
        session.adapter.strengthen(session.module, 1.0)
