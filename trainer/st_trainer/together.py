"""Which processes of a training see the same folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

Gather = Callable[[Any], list[Any]]
"""Gives the values of all processes, in their order, to each of them."""


def sharing(folder: Path, gather: Gather) -> tuple[int, int]:
    """This process's number among those that see the same ``folder``, and their count."""
    token = f".rank-{uuid4().hex}"
    (folder / token).touch()
    tokens = gather(token)
    seen = [each for each in tokens if (folder / each).exists()]
    gather(None)
    (folder / token).unlink()
    return seen.index(token), len(seen)
