"""Captions that are left out, so that the model also learns to draw without one."""

import torch


def drop_captions(captions: list[str], share: float, generator: torch.Generator) -> list[str]:
    """``captions``, a random ``share`` of them emptied, for classifier-free guidance.

    Ho & Salimans 2022, algorithm 1.
    """
    kept = torch.rand(len(captions), generator=generator) >= share
    return [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
