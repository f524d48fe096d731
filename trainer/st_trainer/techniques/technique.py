"""How a technique takes part in training: it overrides the events that it needs.

Before the run: ``attach`` while the model is put together, ``begin`` once the session is complete.
Events of one step, in order: ``prepare`` with the batch that was drawn, ``penalty`` once the model
has answered, ``stepped`` once the optimiser has moved the weights. Around sampling and writing,
``evaluating`` is open. What a technique must remember is its ``state``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from st_trainer.batch import Batch
    from st_trainer.families.family import Denoiser
    from st_trainer.session import Session


@dataclass(frozen=True)
class TechniqueState:
    """What a checkpoint keeps of a technique."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


class Technique:
    """Changes nothing by itself."""

    name = "technique"
    """Name of its file in a checkpoint, such as ``ema.safetensors``."""

    keeps_parts: ClassVar[bool] = False
    """Whether the tensors of its state are parts of parameters; see ``strategies.strategy``."""

    def attach(self, denoiser: "Denoiser") -> None:
        """The adapter is attached; the optimiser is not made yet.

        What is to be trained besides is added to ``denoiser.module`` as a submodule, or hooked in.
        """

    def begin(self, session: "Session") -> None:
        """The session is complete; no step is made yet."""

    def prepare(self, session: "Session", batch: "Batch") -> None:
        """The batch is drawn; change it in place."""

    def penalty(self, session: "Session", batch: "Batch", answer: Tensor) -> Tensor | None:
        """A term that is added to the loss, a scalar; ``answer`` is that of the model."""
        del session, batch, answer
        return None

    def stepped(self, session: "Session") -> None:
        """The optimiser has moved the weights; ``session.step`` is not counted up yet."""

    @contextmanager
    def evaluating(self, session: "Session") -> Iterator[None]:
        """While it lasts, the model samples or is written."""
        del session
        yield

    def state(self) -> TechniqueState:
        """What must be kept to go on bit-exactly."""
        return TechniqueState()

    def restore(self, state: TechniqueState) -> None:
        """Take the state of a checkpoint.

        Raises:
            ValueError: it is not that of this technique.
        """
        del state
