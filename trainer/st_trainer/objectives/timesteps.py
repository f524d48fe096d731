"""Which times are trained: draws on the path from clean (0) to noise (1).

Each distribution is its quantile function: evenly drawn numbers between 0 and 1 become times. So a
stage is a range of those numbers, and a segmented batch takes one of each of its equal parts.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from st_shared.spec.objective import TimestepSpec

_CELLS = 4096
"""Cells of the grid on which a density is integrated."""
_HALVINGS = 54
"""Steps of the search for the ends of a range, to the last bit of a share."""
_LEAST = 1e-12
"""A range that is drawn more seldom than this is drawn evenly."""

Quantile = Callable[[Tensor, TimestepSpec], Tensor]


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
    if distribution not in QUANTILES:
        raise ValueError(f"unknown distribution of times {distribution!r}")
    shares = even_shares(count, spec, generator)
    low, high = _part(distribution, spec.model_dump_json(), shift)
    if high - low < _LEAST:
        times = spec.lowest + (spec.highest - spec.lowest) * shares
    else:
        quantile = QUANTILES[distribution]
        times = shifted(quantile(low + (high - low) * shares, spec), shift)
    return times.float().clamp(spec.lowest, spec.highest)


def even_shares(count: int, spec: TimestepSpec, generator: torch.Generator | None) -> Tensor:
    """Numbers ``(count,)`` from 0 to 1: each drawn by itself, or one of each of ``count`` parts."""
    shares = torch.rand(count, generator=generator, dtype=torch.float64)
    if not spec.segmented:
        return shares
    return (torch.randperm(count, generator=generator) + shares) / count


@lru_cache(maxsize=256)
def _part(distribution: str, document: str, shift: float) -> tuple[float, float]:
    """Which shares become times of the range that ``document``, a ``TimestepSpec``, names."""
    spec = TimestepSpec.model_validate_json(document)
    if (spec.lowest, spec.highest) == (0, 1):
        return 0.0, 1.0

    def first(fits: Callable[[float], bool]) -> tuple[float, float]:
        """Neighbours between which ``fits`` becomes true of the time."""
        below, above = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (below + above) / 2
            share = torch.tensor([middle], dtype=torch.float64)
            time = float(shifted(QUANTILES[distribution](share, spec), shift))
            below, above = (below, middle) if fits(time) else (middle, above)
        return below, above

    return first(lambda time: time >= spec.lowest)[1], first(lambda time: time > spec.highest)[0]


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


def _uniform(shares: Tensor, _spec: TimestepSpec) -> Tensor:
    return shares


def _logit_normal(shares: Tensor, spec: TimestepSpec) -> Tensor:
    """Esser et al. 2024, equation 19, with m = ``sigmoid_offset`` and s = ``sigmoid_scale``."""
    normal: Tensor = torch.special.ndtri(shares)
    return (spec.sigmoid_scale * normal + spec.sigmoid_offset).sigmoid()


def _beta(shares: Tensor, spec: TimestepSpec) -> Tensor:
    def density(times: Tensor) -> Tensor:
        return times ** (spec.beta_alpha - 1) * (1 - times) ** (spec.beta_beta - 1)

    return _with_density(density, shares)


def _cubic(shares: Tensor, spec: TimestepSpec) -> Tensor:
    weights = torch.tensor(spec.cubic_weights, dtype=torch.float64)
    return _with_density(lambda times: catmull_rom(weights, times), shares)


def _fixed(shares: Tensor, spec: TimestepSpec) -> Tensor:
    times = torch.tensor(sorted(spec.fixed), dtype=torch.float64)
    return times[(shares * len(times)).long().clamp(max=len(times) - 1)]


def _with_density(density: Callable[[Tensor], Tensor], shares: Tensor) -> Tensor:
    """Times of an unnormalised density on 0 to 1, by inverting its integral on a grid."""
    middles = (torch.arange(_CELLS, dtype=torch.float64) + 0.5) / _CELLS
    total = density(middles).clamp(min=0).cumsum(0)
    wanted = shares * total[-1]
    cell = torch.searchsorted(total, wanted).clamp(max=_CELLS - 1)
    before = torch.where(cell > 0, total[cell - 1], 0.0)
    part = (wanted - before) / (total[cell] - before).clamp(min=1e-300)
    return (cell + part) / _CELLS


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


QUANTILES: dict[str, Quantile] = {
    "uniform": _uniform,
    "logit_normal": _logit_normal,
    "beta": _beta,
    "cubic": _cubic,
    "fixed": _fixed,
}
