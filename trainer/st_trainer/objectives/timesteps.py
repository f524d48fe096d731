"""Which times are trained: draws on the path from clean (0) to noise (1)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from st_shared.spec.objective import TimestepSpec

_CELLS = 4096
"""Cells of the grid on which a density is integrated."""
_ROUNDS = 64
"""Times outside the wanted range are drawn again so often; then evenly inside it."""

Draw = Callable[[int, TimestepSpec, torch.Generator | None], Tensor]


def draw_times(
    count: int,
    distribution: str,
    spec: TimestepSpec,
    generator: torch.Generator | None = None,
    shift: float = 1.0,
) -> Tensor:
    """Times ``(count,)`` between ``spec.lowest`` and ``spec.highest``, shifted by ``shift``.

    Raises:
        ValueError: there is no such distribution.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"unknown distribution of times {distribution!r}")
    draw = DISTRIBUTIONS[distribution]
    times = shifted(draw(count, spec, generator), shift)
    if (spec.lowest, spec.highest) == (0, 1):
        return times
    for _ in range(_ROUNDS):
        outside = (times < spec.lowest) | (times > spec.highest)
        if not outside.any():
            return times
        times[outside] = shifted(draw(int(outside.sum()), spec, generator), shift)
    even = spec.lowest + (spec.highest - spec.lowest) * torch.rand(count, generator=generator)
    return torch.where((times < spec.lowest) | (times > spec.highest), even, times)


def shifted(times: Tensor, shift: float) -> Tensor:
    """Times moved towards noise where ``shift > 1``; Esser et al. 2024, equation 23."""
    return times if shift == 1 else shift * times / (1 + (shift - 1) * times)


def dynamic_shift(
    tokens: int,
    tokens_between: tuple[int, int] = (256, 4096),
    mu_between: tuple[float, float] = (0.5, 1.15),
) -> float:
    """The shift ``exp(mu)``, with ``mu`` on the line through the two points; as Flux samples."""
    slope = (mu_between[1] - mu_between[0]) / (tokens_between[1] - tokens_between[0])
    return math.exp(mu_between[0] + slope * (tokens - tokens_between[0]))


def _uniform(count: int, _spec: TimestepSpec, generator: torch.Generator | None) -> Tensor:
    return torch.rand(count, generator=generator)


def _logit_normal(count: int, spec: TimestepSpec, generator: torch.Generator | None) -> Tensor:
    """Esser et al. 2024, equation 19, with m = ``sigmoid_offset`` and s = ``sigmoid_scale``."""
    drawn = torch.randn(count, generator=generator)
    return (spec.sigmoid_scale * drawn + spec.sigmoid_offset).sigmoid()


def _beta(count: int, spec: TimestepSpec, generator: torch.Generator | None) -> Tensor:
    def density(times: Tensor) -> Tensor:
        return times ** (spec.beta_alpha - 1) * (1 - times) ** (spec.beta_beta - 1)

    return _with_density(density, count, generator)


def _cubic(count: int, spec: TimestepSpec, generator: torch.Generator | None) -> Tensor:
    weights = torch.tensor(spec.cubic_weights, dtype=torch.float64)
    return _with_density(lambda times: catmull_rom(weights, times), count, generator)


def _fixed(count: int, spec: TimestepSpec, generator: torch.Generator | None) -> Tensor:
    chosen = torch.randint(len(spec.fixed), (count,), generator=generator)
    return torch.tensor(spec.fixed)[chosen]


def _with_density(
    density: Callable[[Tensor], Tensor], count: int, generator: torch.Generator | None
) -> Tensor:
    """Draws from an unnormalised density on 0 to 1, by inverting its integral on a grid."""
    middles = (torch.arange(_CELLS, dtype=torch.float64) + 0.5) / _CELLS
    total = density(middles).clamp(min=0).cumsum(0)
    wanted = torch.rand(count, generator=generator, dtype=torch.float64) * total[-1]
    cell = torch.searchsorted(total, wanted).clamp(max=_CELLS - 1)
    before = torch.where(cell > 0, total[cell - 1], 0.0)
    part = (wanted - before) / (total[cell] - before).clamp(min=1e-300)
    return ((cell + part) / _CELLS).float()


def catmull_rom(weights: Tensor, times: Tensor) -> Tensor:
    """Smooth curve through ``weights`` at equal distances, at ``times`` in 0 to 1, never below 0.

    Catmull & Rom 1974; the ends continue in a line.
    """
    first, last = 2 * weights[:1] - weights[1:2], 2 * weights[-1:] - weights[-2:-1]
    padded = torch.cat([first, weights, last])
    place = times * (len(weights) - 1)
    left = place.long().clamp(max=len(weights) - 2)
    x = place - left
    p0, p1, p2, p3 = (padded[left + offset] for offset in range(4))
    curve = p1 + x / 2 * (
        p2 - p0 + x * (2 * p0 - 5 * p1 + 4 * p2 - p3 + x * (3 * (p1 - p2) + p3 - p0))
    )
    return curve.clamp(min=0)


DISTRIBUTIONS: dict[str, Draw] = {
    "uniform": _uniform,
    "logit_normal": _logit_normal,
    "beta": _beta,
    "cubic": _cubic,
    "fixed": _fixed,
}
