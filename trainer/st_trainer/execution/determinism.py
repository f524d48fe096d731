"""Kernels that give the same to the bit each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic as _module

deterministic: Any = _module  # mypy does not see what its class has
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def same_each_time(*, wanted: bool) -> Iterator[None]:
    """Compute so while this is open, if it is ``wanted``; open it before anything is computed.

    On GPUs some of torch's kernels add up in the order in which threads come by, and cuDNN and
    cuBLAS choose theirs by what is free; see torch's notes on reproducibility. What has no other
    kernel raises torch's RuntimeError, which names the operation.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(mode=True)
    deterministic.fill_uninitialized_memory = False  # it helps to find mistakes, and takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before[0])
        deterministic.fill_uninitialized_memory = before[1]
