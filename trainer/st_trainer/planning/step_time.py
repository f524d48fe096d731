"""Seconds of a step, from its operations and the bytes that it moves."""

from st_shared.spec.training import TrainingSpec
from st_trainer.planning.accelerators import Accelerator
from st_trainer.planning.estimate import Estimate

_SHARE = 0.4
"""Part of the arithmetic of a data sheet that training of transformers reaches; reports of large
runs have 0.35 to 0.55, such as Chowdhery et al. 2022, section 4.1."""
_SHARE_OF_BANDWIDTH = 0.7
"""The same of bandwidth."""
_START = 25e-6
"""Seconds in which a host starts one kernel, Python, autograd and autocast included. Virtual hosts
of H200s took 28 to 48 us for each that a plan counts: from the seconds of steps in
``benchmarks/results/on_accelerator.json``, and of a run before it."""
_COMPILED = 0.5
"""Part of that where blocks are compiled; a guess, which was not measured."""


def step_seconds(spec: TrainingSpec, estimate: Estimate, target: Accelerator) -> float:
    """About how long one optimiser step takes on ``target``; expect half to twice as long.

    Kernels follow one another, and the host starts them meanwhile; memory and what processes
    exchange overlap with that, so the slowest decides. What goes to the host comes on top, and so
    do tokens that are exchanged. All processes are taken to be of one host.
    """
    bandwidth = target.bandwidth * _SHARE_OF_BANDWIDTH
    arithmetic = estimate.operations / (target.operations(spec.precision) * _SHARE)
    passes = arithmetic + estimate.touched / bandwidth
    starts = estimate.kernels * _START * (_COMPILED if spec.speed.compile else 1)
    memory = estimate.moved / bandwidth
    link = estimate.transferred / (target.link * _SHARE_OF_BANDWIDTH)
    fabric = target.fabric * _SHARE_OF_BANDWIDTH
    beside, awaited = estimate.exchanged / fabric, estimate.awaited / fabric
    return max(passes, starts, memory, beside) + link + awaited
