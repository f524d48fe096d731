"""Reads one sound file at the wanted rate and length."""

import math
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from st_shared.media import SUFFIXES
from st_trainer.data.buckets import share_of
from st_trainer.data.content import Content
from st_trainer.data.digests import digest_of
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import (
    DamagedSampleError,
    FoundSample,
    Medium,
    ReadSample,
    UnreadableSampleError,
)

_MOST_CHANNELS = 8
_HIGHEST_RATE = 768_000
_SPARE_SECONDS = 0.1
"""Read beyond the end, so that the filter of resampling does not meet it."""


@dataclass(frozen=True)
class Sounds(Medium):
    """Stereo of ``length`` values a channel, ``rate`` a second, of a ``part`` of each file.

    With ``step`` a sound that is shorter gets the most steps that it fills.
    """

    kind = "audio"
    noun = "sound"
    formats = "WAV, FLAC, Ogg, MP3 or AIFF sound"

    length: int
    rate: int
    step: int | None = None
    part: Literal["beginning", "end", "random"] = "beginning"

    @property
    def suffixes(self) -> frozenset[str]:
        """Those of sounds."""
        return SUFFIXES["audio"]

    def read(self, content: Content) -> ReadSample:
        """That part, ``(2, L)`` floats -1 to 1; mono is doubled, of more channels two stay."""
        with content.open() as file:
            return self._decoded(file, content.name)

    def found(self, content: Content) -> FoundSample:
        """Of a large remote sound the part that is wanted, and what leads to it."""
        remote = content.remote()
        if remote is None:
            return super().found(content)
        with remote.opened() as file:
            return FoundSample.decoded(self._decoded(file, content.name, remote.version))

    def _decoded(self, raw: BinaryIO, name: str, version: bytes | None = None) -> ReadSample:
        """That part; ``version`` stands for the bytes of a file that is not read as a whole."""
        import soundfile  # noqa: PLC0415 -- only where there are sounds

        try:
            with soundfile.SoundFile(raw) as file:
                start = self._start(file, name)
                values, changes = self._from(file, start)
                facts = SampleFacts((file.frames,), (start,), values.shape[1:])
            identity = version or digest_of(raw)
        except (soundfile.SoundFileError, OSError) as error:
            reason = getattr(error, "error_string", None) or error
            raise DamagedSampleError(f"damaged sound: {reason}") from None
        return ReadSample(values, identity, changes, facts)

    def _start(self, file: Any, name: str) -> int:
        """The first value of the file that is read."""
        spare: int = max(file.frames - math.ceil(self.length / self.rate * file.samplerate), 0)
        shares = {"beginning": 0.0, "end": 1.0}
        share = shares[self.part] if self.part in shares else share_of(name)
        return round(spare * share)

    def _from(self, file: Any, start: int) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        rate, channels = file.samplerate, file.channels
        if channels > _MOST_CHANNELS or rate > _HIGHEST_RATE:
            raise UnreadableSampleError(f"{channels} channels at {rate} Hz are not read")
        wanted = math.ceil((self.length / self.rate + _SPARE_SECONDS) * rate)
        if start:
            file.seek(start)
        found = file.read(wanted, dtype="float32", always_2d=True)
        length = self._length(len(found) * self.rate // rate)
        if not np.isfinite(found).all():
            raise UnreadableSampleError("it holds values that are not finite")
        changes = []
        if length < min(self.length, len(found) * self.rate // rate):
            changes.append(f"cut to {length / self.rate:g} seconds of {len(found) / rate:.2f}")
        if channels != 2:
            changes.append(f"converted from {channels} channels to 2")
        if rate != self.rate:
            changes.append(f"resampled from {rate} Hz")
        stereo = found[:, [0, min(1, channels - 1)]]
        values = _resampled(stereo, rate, self.rate)[:length].T.clip(-1, 1)
        return np.ascontiguousarray(values, dtype=np.float32), tuple(changes)

    def _length(self, found: int) -> int:
        """How many of the values ``found`` a sample has.

        Raises:
            UnreadableSampleError: too few.
        """
        if found >= self.length:
            return self.length
        length = found // self.step * self.step if self.step else 0
        if not length:
            least = min(self.step or self.length, self.length)
            raise UnreadableSampleError(
                f"too short: {found / self.rate:.2f} seconds, not {least / self.rate:.2f}"
            )
        return length


def _resampled(values: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """``values`` ``(L, C)`` at another rate, through a polyphase filter."""
    if rate == wanted:
        return values
    from scipy.signal import resample_poly  # noqa: PLC0415 -- only where there are sounds

    common = math.gcd(rate, wanted)
    found: NDArray[np.float32] = resample_poly(values, wanted // common, rate // common, axis=0)
    return found
