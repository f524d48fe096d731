"""Which part of a batch is this process's, where several train together.

Every process draws the random numbers of the whole batch, from the same generator, and keeps its
rows: so what is learned depends on the batch, not on how many processes share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """Part ``rank``, from 0, of ``parts`` equal ones."""

    rank: int = 0
    parts: int = 1

    @overload
    def rows(self, whole: Tensor) -> Tensor: ...

    @overload
    def rows(self, whole: Sequence[T]) -> Sequence[T]: ...

    def rows(self, whole: Tensor | Sequence[T]) -> Tensor | Sequence[T]:
        """The rows of this part, of something whose first dimension is the whole batch."""
        size, rest = divmod(len(whole), self.parts)
        if rest:
            raise ValueError(f"{len(whole)} rows cannot be dealt over {self.parts} processes")
        return whole[self.rank * size : (self.rank + 1) * size]

    def normal(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """This part of standard normal numbers; ``like`` is as large as the part."""
        shape = (len(like) * self.parts, *like.shape[1:])
        drawn = torch.randn(shape, generator=generator, dtype=like.dtype)
        return self.rows(drawn).to(like.device)


WHOLE = Share()
"""One process trains alone."""
