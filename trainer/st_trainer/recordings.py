"""Writes videos and sounds, whole or not at all."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from st_shared.durable import move_durably

_MOST_PER_SECOND = 65_535
"""Denominator of a frame rate that MP4 holds."""
_QUALITY = "18"
"""Constant rate factor of x264: hardly told from the original."""
_CENTISECOND = 10
"""Milliseconds of GIF's unit of time; browsers slow down what lasts a single one."""


def write_video(path: Path, frames: NDArray[np.uint8], rate: float) -> None:
    """Write ``frames`` ``(3, F, H, W)`` at ``rate`` a second, as MP4 or, by its suffix, as GIF.

    H and W of an MP4 are even.
    """
    aside = path.with_name(f".{path.name}.partial")
    if path.suffix == ".gif":
        _write_gif(aside, frames, rate)
    else:
        _write_mp4(aside, frames, rate)
    move_durably(aside, path)


def _write_mp4(path: Path, frames: NDArray[np.uint8], rate: float) -> None:
    import av  # noqa: PLC0415 -- only where there are videos

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(rate).limit_denominator(_MOST_PER_SECOND),
            options={"crf": _QUALITY},
        )
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = "yuv420p"
        for pixels in frames.transpose(1, 2, 3, 0):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: NDArray[np.uint8], rate: float) -> None:
    """Frames with a palette each; GIF counts time in hundredths of a second."""
    first, *rest = (Image.fromarray(pixels) for pixels in frames.transpose(1, 2, 3, 0))
    pause = max(round(1000 / rate / _CENTISECOND), 2) * _CENTISECOND
    first.save(path, "GIF", save_all=True, append_images=rest, duration=pause, loop=0)


def write_sound(path: Path, values: NDArray[np.floating[Any]], rate: int) -> None:
    """Write ``values`` ``(C, L)``, -1 to 1, with 16 bits at ``rate`` a second.

    As WAV or, by its suffix, as FLAC.
    """
    import soundfile  # noqa: PLC0415 -- only where there are sounds

    aside = path.with_name(f".{path.name}.partial")
    kind = "FLAC" if path.suffix == ".flac" else "WAV"
    soundfile.write(aside, values.T, rate, subtype="PCM_16", format=kind)
    move_durably(aside, path)
