"""Seconds of a step, from its operations and the bytes that it moves."""

from st_shared.spec.training import TrainingSpec
from st_trainer.planning.accelerators import Accelerator
from st_trainer.planning.estimate import Estimate

_SHARE = 0.4
"""Part of the arithmetic of a data sheet that training of transformers reaches; reports of large
runs have 0.35 to 0.55, such as Chowdhery et al. 2022, section 4.1."""
_SHARE_OF_BANDWIDTH = 0.7
"""The same of bandwidth."""


def step_seconds(spec: TrainingSpec, estimate: Estimate, target: Accelerator) -> float:
    """About how long one optimiser step takes on ``target``; expect half to twice as long.

    Arithmetic, memory and what processes exchange meanwhile overlap, so the slowest decides; what
    goes to the host comes on top, and so do tokens that are exchanged. All processes are taken to
    be of one host.
    """
    arithmetic = estimate.operations / (target.operations(spec.precision) * _SHARE)
    memory = estimate.moved / (target.bandwidth * _SHARE_OF_BANDWIDTH)
    link = estimate.transferred / (target.link * _SHARE_OF_BANDWIDTH)
    fabric = target.fabric * _SHARE_OF_BANDWIDTH
    beside, awaited = estimate.exchanged / fabric, estimate.awaited / fabric
    return max(arithmetic, memory, beside) + link + awaited
