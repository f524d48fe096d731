"""Schedule-free optimisers keep two sets of weights: one to train, their average to sample."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from st_trainer.adapters.adapter import copy_into, trained
from st_trainer.techniques.technique import Technique

if TYPE_CHECKING:
    from st_trainer.session import Session


class ScheduleFree(Technique):
    """Switches the optimiser between the two; Defazio et al. 2024, section 2."""

    name = "schedule_free"

    def begin(self, session: "Session") -> None:
        """Train the weights where gradients are taken."""
        self._optimizer(session).train()

    @contextmanager
    def evaluating(self, session: "Session") -> Iterator[None]:
        """The average stands in for the weights, which come back to the last bit."""
        present = trained(session.module)
        before = {name: each.detach().clone() for name, each in present.items()}
        self._optimizer(session).eval()
        try:
            yield
        finally:
            self._optimizer(session).train()
            copy_into(present, before)

    @staticmethod
    def _optimizer(session: "Session") -> Any:
        return session.optimizer
