"""Reads one video file as frames at the wanted rate and size."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from st_shared.media import SUFFIXES
from st_trainer.data.buckets import Size
from st_trainer.data.content import Content
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import MAX_PIXELS, read_image
from st_trainer.data.medium import Medium, ReadSample, Shape, UnreadableSampleError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_OPTIONS = {"format_whitelist": "mov,matroska,webm,avi", "protocol_whitelist": "file"}
"""Formats that hold their frames themselves: playlists may name any file or address."""
_LEAST = 1e-6
"""Seconds by which a frame may come late and still count as shown."""


@dataclass(frozen=True)
class Videos(Medium):
    """``frames`` RGB frames, ``rate`` a second, from the beginning of each file.

    With a single frame, pictures are read as well.
    """

    kind = "video"
    noun = "video"
    formats = "MP4, MOV, Matroska, WebM or AVI video"

    frames: int
    height: int
    width: int
    rate: float

    @property
    def suffixes(self) -> frozenset[str]:
        """Those of videos; for a single frame those of pictures too."""
        return SUFFIXES["video"] | (SUFFIXES["image"] if self.frames == 1 else frozenset())

    def area(self, shape: Shape) -> Size:
        """Height and width of each frame."""
        return shape[-2], shape[-1]

    def read(self, content: Content) -> ReadSample:
        """The first frames, ``(3, F, H, W)`` bytes; each is the one that is shown at its time."""
        if content.suffix in SUFFIXES["image"]:
            image = read_image(content, [(self.height, self.width)], 3)
            identity = image.pixels.tobytes()
            return ReadSample(image.pixels[:, None], identity, image.changes, image.facts)
        with content.open() as file:
            return self._decoded(file)

    def _decoded(self, file: BinaryIO) -> ReadSample:
        import av  # noqa: PLC0415 -- only where there are videos

        try:
            with av.open(file, "r", options=_OPTIONS) as container:
                frames, changes, facts = self._frames(container)
            file.seek(0)
            identity = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreadableSampleError(f"damaged video: {reason}") from None
        return ReadSample(np.stack(frames, axis=1), identity, changes, facts)

    def _frames(
        self, container: "InputContainer"
    ) -> tuple[list[NDArray[np.uint8]], tuple[str, ...], SampleFacts]:
        if not container.streams.video:
            raise UnreadableSampleError("there are no pictures in it")
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_PIXELS:
            raise UnreadableSampleError(f"more than {MAX_PIXELS:,} pixels a frame")
        size, rate = f"{stream.width}x{stream.height}", float(stream.average_rate or self.rate)
        frames: list[NDArray[np.uint8]] = []
        original = (stream.height, stream.width)
        for frame, count in self._shown(container, stream):
            frames += [self._pixels(frame)] * count
            original = _upright(frame)
        if len(frames) < self.frames:
            raise UnreadableSampleError(
                f"too short: {len(frames)} frames at {self.rate:g} a second, not {self.frames}"
            )
        changes = []
        if (stream.height, stream.width) != (self.height, self.width):
            changes.append(f"resized from {size}")
        if abs(rate - self.rate) > _LEAST:
            changes.append(f"resampled from {rate:g} frames a second")
        facts = SampleFacts.fitted(original, (self.height, self.width))
        return frames, tuple(changes), facts

    def _shown(
        self, container: "InputContainer", stream: "VideoStream"
    ) -> Iterator[tuple["VideoFrame", int]]:
        """Frames that are shown at any of the wanted times, with how many of these times."""
        taken, start, last = 0, None, None
        usual = 1 / float(stream.average_rate or self.rate)
        for index, frame in enumerate(container.decode(stream)):
            time = index * usual if frame.time is None else frame.time
            start = time if start is None else start
            if last is not None and (count := self._times(taken, time - start)):
                yield last, count
                taken += count
            if taken == self.frames:
                return
            last, end = frame, time - start + usual
        if last is not None and (count := self._times(taken, end)):
            yield last, count

    def _times(self, taken: int, until: float) -> int:
        """How many of the times ``taken / rate`` and later, yet wanted, lie before ``until``."""
        count = 0
        while taken + count < self.frames and (taken + count) / self.rate < until - _LEAST:
            count += 1
        return count

    def _pixels(self, frame: "VideoFrame") -> NDArray[np.uint8]:
        """One frame, upright, cropped in its middle, ``(3, H, W)``."""
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
        image = image.rotate(frame.rotation, expand=True)
        fitted = ImageOps.fit(image, (self.width, self.height), Image.Resampling.LANCZOS)
        return np.ascontiguousarray(np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1))


def _upright(frame: "VideoFrame") -> Size:
    """Height and width of a frame as it is shown."""
    turned = frame.rotation % 180 != 0
    return (frame.width, frame.height) if turned else (frame.height, frame.width)
