"""Writes videos and sounds, whole or not at all."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_shared.durable import move_durably

_MOST_PER_SECOND = 65_535
"""Denominator of a frame rate that MP4 holds."""
_QUALITY = "18"
"""Constant rate factor of x264: hardly told from the original."""


def write_video(path: Path, frames: NDArray[np.uint8], rate: float) -> None:
    """Write ``frames`` ``(3, F, H, W)`` as MP4 at ``rate`` a second; H and W are even."""
    import av  # noqa: PLC0415 -- only where there are videos

    aside = path.with_name(f".{path.name}.partial")
    with av.open(str(aside), "w", format="mp4") as container:
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
    move_durably(aside, path)


def write_sound(path: Path, values: NDArray[np.floating[Any]], rate: int) -> None:
    """Write ``values`` ``(C, L)``, -1 to 1, as WAV of 16 bits at ``rate`` a second."""
    import soundfile  # noqa: PLC0415 -- only where there are sounds

    aside = path.with_name(f".{path.name}.partial")
    soundfile.write(aside, values.T, rate, subtype="PCM_16", format="WAV")
    move_durably(aside, path)
