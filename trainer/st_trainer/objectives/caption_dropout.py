"""Captions that are left out, so that the model also learns to draw without one."""

from collections.abc import Sequence

import torch


def drop_captions(
    captions: Sequence[str], shares: float | Sequence[float], generator: torch.Generator
) -> list[str]:
    """``captions``, a random share of them emptied, for classifier-free guidance.

    ``shares`` are one for all or one for each.

    Ho & Salimans 2022, algorithm 1.
    """
    kept = torch.rand(len(captions), generator=generator) >= torch.tensor(shares)
    return [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
