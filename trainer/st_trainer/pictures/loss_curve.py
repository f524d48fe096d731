"""The loss over the steps of a run, as a picture with axes that a person can read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from st_trainer.pictures.ink import ACCENT, ACCENT_PALE, INK, MUTED, PAPER, RULE, font

Points = Sequence[tuple[int, float]]

_WIDTH, _HEIGHT = 960, 540
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 36, 84, 64
_FINE = 2
"""Drawn this many times larger and then reduced, which smooths the lines."""

_SMOOTHING = 0.05
"""Share of the run that the running mean looks back and ahead."""


@dataclass(frozen=True)
class Axes:
    """Turns steps and losses into places on the sheet."""

    steps: int
    low: float
    high: float

    def place(self, step: float, loss: float) -> tuple[float, float]:
        """Pixels from the left and from the top."""
        across = (_WIDTH - _LEFT - _RIGHT) * step / self.steps
        down = (_HEIGHT - _TOP - _BOTTOM) * (self.high - loss) / (self.high - self.low)
        return _FINE * (_LEFT + across), _FINE * (_TOP + down)


def loss_curve(points: Points, steps: int) -> Image.Image:
    """``points`` ``(step, loss)`` of a run of ``steps``: pale as measured, strong when smoothed."""
    axes = _axes(points, steps)
    sheet = Image.new("RGB", (_FINE * _WIDTH, _FINE * _HEIGHT), PAPER)
    pen = ImageDraw.Draw(sheet)
    _draw_axes(pen, axes)
    smooth = smoothed(points)
    _draw_line(pen, axes, points, ACCENT_PALE, 2)
    _draw_line(pen, axes, smooth, ACCENT, 3)
    _draw_words(pen, axes, smooth, steps)
    return sheet.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)


def smoothed(points: Points) -> list[tuple[int, float]]:
    """Mean of each point and its neighbours, the near ones weighing more; it does not lag.

    The window is symmetric and narrows towards both ends.
    """
    reach = max(1, round(len(points) * _SMOOTHING))
    found = []
    for index, (step, _) in enumerate(points):
        span = min(reach, index, len(points) - 1 - index)
        weights = [span + 1 - abs(offset) for offset in range(-span, span + 1)]
        near = points[index - span : index + span + 1]
        mean = sum(w * loss for w, (_, loss) in zip(weights, near, strict=True)) / sum(weights)
        found.append((step, mean))
    return found


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most + 1`` round values (1, 2 or 5 times a power of ten) from low to high."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9)
    return [round(index * gap, 12) for index in range(first, last + 1)]


def _axes(points: Points, steps: int) -> Axes:
    """From 0 when the losses are positive, to a round value above the highest of them."""
    losses = [loss for _, loss in points] or [0.0, 1.0]
    low, high = min(0.0, *losses), max(losses)
    if high <= low:
        high = low + 1
    gap = ticks(low, high, 6)
    width = gap[1] - gap[0] if len(gap) > 1 else high - low
    return Axes(steps, math.floor(low / width) * width, math.ceil(high / width) * width)


def _draw_axes(pen: ImageDraw.ImageDraw, axes: Axes) -> None:
    letters = font(14 * _FINE)
    values = ticks(axes.low, axes.high, 6)
    digits = max(0, -math.floor(math.log10(values[1] - values[0]))) if len(values) > 1 else 2
    for value in values:
        left, height = axes.place(0, value)
        pen.line([(left, height), axes.place(axes.steps, value)], RULE, _FINE)
        pen.text((left - 10 * _FINE, height), f"{value:.{digits}f}", MUTED, letters, anchor="rm")
    for value in ticks(0, axes.steps, 8):
        if value != int(value):
            continue
        across, bottom = axes.place(value, axes.low)
        pen.line([(across, bottom), (across, bottom + 5 * _FINE)], MUTED, _FINE)
        pen.text((across, bottom + 10 * _FINE), f"{value:,.0f}", MUTED, letters, anchor="ma")
    pen.line([axes.place(0, axes.low), axes.place(axes.steps, axes.low)], MUTED, _FINE)


def _draw_line(
    pen: ImageDraw.ImageDraw, axes: Axes, points: Points, colour: tuple[int, ...], width: int
) -> None:
    places = [axes.place(step, loss) for step, loss in points]
    if len(places) > 1:
        pen.line(places, colour, width * _FINE, joint="curve")
    elif places:
        pen.circle(places[0], width * _FINE, colour)


def _draw_words(pen: ImageDraw.ImageDraw, axes: Axes, smooth: Points, steps: int) -> None:
    pen.text((24 * _FINE, 22 * _FINE), "Training loss", INK, font(21 * _FINE))
    legend = "mean squared error of the velocity; pale: as measured, strong: running mean"
    pen.text((24 * _FINE, 51 * _FINE), legend, MUTED, font(14 * _FINE))
    middle, bottom = axes.place(steps / 2, axes.low)
    pen.text((middle, bottom + 34 * _FINE), "step", MUTED, font(14 * _FINE), anchor="ma")
    if not smooth:
        return
    place = axes.place(*smooth[-1])
    pen.circle(place, 5 * _FINE, ACCENT)
    label = (place[0], place[1] - 12 * _FINE)
    pen.text(label, f"{smooth[-1][1]:.3f}", ACCENT, font(16 * _FINE), anchor="rs")
