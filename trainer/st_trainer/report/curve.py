"""Curves of metrics as SVG that stands in a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from st_trainer.pictures.loss_curve import smoothed, ticks

Points = Sequence[tuple[int, float]]

_WIDTH, _HEIGHT = 480, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 34, 12, 28
_MOST_POINTS = 400
_COLOURS = ("#0969da", "#bf3989", "#1a7f37", "#9a6700", "#8250df", "#cf222e", "#0a7ea4", "#57606a")
_UNITS = (("", 1.0, 10_000), ("k", 1e3, 1_000), ("M", 1e6, 1_000), ("G", 1e9, 1_000))
"""Each with its size, and how many of it are written before the next."""
_SMOOTHED_FROM = 40
"""Points from which on a running mean is drawn over what was measured."""


@dataclass(frozen=True)
class Line:
    """One metric in a chart."""

    name: str
    points: Points

    @property
    def last(self) -> float:
        """Its newest value."""
        return self.points[-1][1]


@dataclass(frozen=True)
class _Axes:
    first: int
    last: int
    low: float
    high: float

    def place(self, step: float, value: float) -> str:
        across = (_WIDTH - _LEFT - _RIGHT) * (step - self.first) / max(self.last - self.first, 1)
        down = (_HEIGHT - _TOP - _BOTTOM) * (self.high - value) / (self.high - self.low)
        return f"{_LEFT + across:.1f},{_TOP + down:.1f}"


def chart(lines: Sequence[Line]) -> Markup:
    """``lines`` over the steps, each with its name and newest value in a legend below."""
    axes = _axes(lines)
    parts = [*_grid(axes)]
    for number, line in enumerate(lines):
        parts += _drawn(line, axes, _COLOURS[number % len(_COLOURS)])
    body = Markup("").join(parts)
    label = ", ".join(line.name for line in lines)
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg><p class="legend">{}</p>'
    ).format(_WIDTH, _HEIGHT, label, body, _legend(lines))


def shown(value: float) -> str:
    """A number in at most four digits and eight letters: ``0.6931``, ``2.5e-06``, ``101.8k``."""
    for unit, factor, most in _UNITS:
        text = f"{value / factor:.4g}"
        if abs(float(text)) < most:
            return text + unit
    return f"{value:.3g}"


def _legend(lines: Sequence[Line]) -> Markup:
    item = Markup('<span><i style="background:{}"></i>{} <b>{}</b></span> ')
    colours = (_COLOURS[number % len(_COLOURS)] for number in range(len(lines)))
    return Markup("").join(
        item.format(colour, line.name, shown(line.last))
        for colour, line in zip(colours, lines, strict=True)
    )


def _axes(lines: Sequence[Line]) -> _Axes:
    steps = [step for line in lines for step, _ in line.points]
    values = [value for line in lines for _, value in line.points]
    low, high = min(values), max(values)
    if low > 0 and low < high / 2:
        low = 0.0
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    return _Axes(min(0, *steps) if len(steps) > 1 else 0, max(*steps, 1), low, high)


def _grid(axes: _Axes) -> list[Markup]:
    found = []
    row = Markup('<path d="M{} L{}" class="rule"/><text x="{}" y="{}" class="left">{}</text>')
    for value in ticks(axes.low, axes.high, 5):
        left, right = axes.place(axes.first, value), axes.place(axes.last, value)
        height = float(left.partition(",")[2]) + 4
        found.append(row.format(left, right, _LEFT - 8, height, shown(value)))
    column = Markup('<text x="{}" y="{}" class="below">{}</text>')
    for value in ticks(axes.first, axes.last, 6):
        if value == int(value):
            across = axes.place(value, axes.low).partition(",")[0]
            found.append(column.format(across, _HEIGHT - 8, f"{int(value):,}"))
    return found


def _drawn(line: Line, axes: _Axes, colour: str) -> list[Markup]:
    points = thinned(line.points)
    if len(points) == 1:
        x, _, y = axes.place(*points[0]).partition(",")
        return [Markup('<circle cx="{}" cy="{}" r="3" fill="{}"/>').format(x, y, colour)]
    path = Markup('<path d="{}" fill="none" stroke="{}" stroke-width="{}" opacity="{}"/>')
    if len(points) < _SMOOTHED_FROM:
        return [path.format(_path(points, axes), colour, 2, 1)]
    pale = path.format(_path(points, axes), colour, 1, 0.35)
    return [pale, path.format(_path(smoothed(points), axes), colour, 2, 1)]


def _path(points: Points, axes: _Axes) -> str:
    return str(escape("M" + " L".join(axes.place(*point) for point in points)))


def thinned(points: Points) -> Points:
    """At most ``_MOST_POINTS`` of them, evenly chosen, the first and the last among them."""
    if len(points) <= _MOST_POINTS:
        return points
    gap = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(number * gap)] for number in range(_MOST_POINTS)]
