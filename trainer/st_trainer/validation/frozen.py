"""Keeps what validation does out of the training: random numbers go on as if it had not been."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def frozen_random(device: torch.device) -> Iterator[None]:
    """Whatever is drawn meanwhile, the global generators stand afterwards where they stood."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 -- others may use it
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
