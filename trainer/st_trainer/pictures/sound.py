"""A sound as a picture: its waveform above, its spectrogram below."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from st_trainer.pictures.ink import ACCENT, MUTED, PAPER, RULE, font

_WIDTH, _WAVE, _SPECTRUM, _LABEL = 480, 80, 160, 24
_WINDOW = 1024
"""Values of one spectrum; fewer where the sound is shorter."""
_RANGE = 80.0
"""Decibels below the loudest that are still told from silence."""
_LOWEST = 40.0
"""Frequency at the bottom, Hz; the scale is logarithmic up to half the rate."""


def sound_picture(values: NDArray[np.floating[Any]], rate: int) -> Image.Image:
    """``values`` ``(C, L)``, -1 to 1, at ``rate`` a second: waveform, then spectrogram."""
    mono = np.asarray(values, np.float32).mean(axis=0)
    sheet = Image.new("RGB", (_WIDTH, _WAVE + _SPECTRUM + _LABEL), PAPER)
    _draw_wave(ImageDraw.Draw(sheet), mono)
    sheet.paste(_spectrogram(mono, rate), (0, _WAVE))
    words = f"{len(mono) / rate:.1f} s · spectrogram to {rate / 2000:g} kHz, {_RANGE:g} dB"
    ImageDraw.Draw(sheet).text((4, _WAVE + _SPECTRUM), words, MUTED, font(16))
    return sheet


def _draw_wave(pen: ImageDraw.ImageDraw, mono: NDArray[np.float32]) -> None:
    middle = _WAVE / 2
    pen.line([(0, middle), (_WIDTH, middle)], RULE)
    for column, part in enumerate(np.array_split(mono, _WIDTH)):
        if part.size:
            high, low = float(part.max()), float(part.min())
            ends = [(column, middle - high * middle), (column, middle - low * middle)]
            pen.line(ends, ACCENT)


def _spectrogram(mono: NDArray[np.float32], rate: int) -> Image.Image:
    """Power in decibels, dark for loud; columns are times, rows frequencies."""
    size = min(_WINDOW, len(mono))
    starts = np.linspace(0, len(mono) - size, _WIDTH).astype(int)
    windows = np.stack([mono[start : start + size] for start in starts]) * np.hanning(size)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2  # (times, frequencies)
    levels = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 1e-12))
    top = rate / 2
    wanted = np.geomspace(min(_LOWEST, top / 2), top, _SPECTRUM)
    rows = np.clip((wanted * size / rate).round().astype(int), 0, power.shape[1] - 1)
    shown = np.clip(1 + levels[:, rows] / _RANGE, 0, 1).T[::-1]
    ink = np.array(PAPER) + shown[..., None] * (np.array(ACCENT) * 0.6 - np.array(PAPER))
    return Image.fromarray(ink.astype(np.uint8))
