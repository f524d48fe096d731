"""Regional compilation: the blocks that a model repeats, one graph for all of them.

https://docs.pytorch.org/tutorials/recipes/regional_compilation.html
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from st_trainer.errors import BadSpecError
from st_trainer.execution.blocks import repeated_blocks


def compile_blocks(module: nn.Module, backend: str | Callable[..., Any] = "inductor") -> int:
    """Compile each repeated block when it is first called; gives their number.

    Blocks of one class share the code, so it is traced once a shape.

    Raises:
        BadSpecError: the model repeats nothing.
    """
    blocks = repeated_blocks(module)
    if not blocks:
        raise BadSpecError("training.speed.compile: this model repeats no block: drop it")
    for _, block in blocks:
        block.compile(backend=backend)
    return len(blocks)
