"""Reads one video file as frames at the wanted rate and size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from st_shared.media import SUFFIXES
from st_trainer.data.buckets import CENTRE, Centring, Crop, Size, centring_by, nearest
from st_trainer.data.content import Content
from st_trainer.data.digests import digest_of
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import (
    MAX_PIXELS,
    Place,
    centring_at,
    found_image,
    place_of,
    read_image,
    told_of,
)
from st_trainer.data.medium import (
    DamagedSampleError,
    FoundSample,
    Medium,
    ReadSample,
    Shape,
    UnreadableSampleError,
)

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

    With a single frame, pictures are read as well. With ``buckets`` each video gets the one of
    these sizes whose aspect is nearest to its own. With ``frame_step`` one that is shorter gets
    as many frames as it has, of a multiple of so many and one more.
    """

    kind = "video"
    noun = "video"
    formats = "MP4, MOV, Matroska, WebM or AVI video"

    frames: int
    height: int
    width: int
    rate: float
    buckets: tuple[Size, ...] = ()
    crop: Crop = "center"
    frame_step: int | None = None

    @property
    def suffixes(self) -> frozenset[str]:
        """Those of videos; for a single frame those of pictures too."""
        return SUFFIXES["video"] | (SUFFIXES["image"] if self.frames == 1 else frozenset())

    def area(self, shape: Shape) -> Size:
        """Height and width of each frame."""
        return shape[-2], shape[-1]

    def read(self, content: Content) -> ReadSample:
        """The first frames, ``(3, F, H, W)`` bytes; each is the one that is shown at its time."""
        if self._is_picture(content):
            image = read_image(content, self._sizes, 3, place_of(self.crop, content))
            identity = image.pixels.tobytes()
            return ReadSample(image.pixels[:, None], identity, image.changes, image.facts)
        place = place_of(self.crop, content)
        with content.open() as file:
            return self._decoded(file, place)

    def found(self, content: Content) -> FoundSample:
        """Of a large remote video the frames that are wanted, and what leads to them."""
        remote = content.remote()
        if remote is None:
            return super().found(content)
        place = place_of(self.crop, content)
        if self._is_picture(content):
            image = found_image(remote, self._sizes, 3, place)
            return replace(image, shape=(3, 1, *image.shape[1:]))
        with remote.opened() as file:
            return FoundSample.decoded(self._decoded(file, place, remote.version))

    def _is_picture(self, content: Content) -> bool:
        return self.frames == 1 and content.suffix in SUFFIXES["image"]

    def first_frame(self, content: Content) -> NDArray[np.uint8]:
        """The one that ``read`` gives first, ``(3, H, W)``."""
        frame: NDArray[np.uint8] = replace(self, frames=1).read(content).values[:, 0]
        return frame

    def centring(self, name: str, facts: SampleFacts) -> Centring:
        """As ``crop`` says."""
        return facts.centring if self.crop == "face" else centring_by(self.crop, name)

    @property
    def _sizes(self) -> Sequence[Size]:
        return self.buckets or [(self.height, self.width)]

    def _decoded(self, file: BinaryIO, place: Place, version: bytes | None = None) -> ReadSample:
        """The frames; ``version`` stands for the bytes of a file that is not read as a whole."""
        import av  # noqa: PLC0415 -- only where there are videos

        try:
            with av.open(file, "r", options=_OPTIONS) as container:
                frames, changes, facts = self._frames(container, place)
            identity = version or digest_of(file)
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            kind = UnreadableSampleError if isinstance(error, MemoryError) else DamagedSampleError
            raise kind(f"damaged video: {reason}") from None
        return ReadSample(np.stack(frames, axis=1), identity, changes, facts)

    def _frames(
        self, container: "InputContainer", place: Place
    ) -> tuple[list[NDArray[np.uint8]], tuple[str, ...], SampleFacts]:
        if not container.streams.video:
            raise UnreadableSampleError("there are no pictures in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UnreadableSampleError("damaged video: nothing here decodes it")
        if stream.width * stream.height > MAX_PIXELS:
            raise UnreadableSampleError(f"more than {MAX_PIXELS:,} pixels a frame")
        size, rate = f"{stream.width}x{stream.height}", float(stream.average_rate or self.rate)
        frames: list[NDArray[np.uint8]] = []
        original = fitted = (stream.height, stream.width)
        centring = CENTRE
        for frame, count in self._shown(container, stream):
            if not frames:
                original = _upright(frame)
                fitted = nearest(self._sizes, *original)
                centring = centring_at(place, original, fitted)
            frames += [_pixels(frame, fitted, centring)] * count
        changes = []
        if len(frames) < self.frames:
            usable = self._usable(len(frames))
            if usable < len(frames):
                changes.append(f"cut to {usable} frames of {len(frames)}")
            frames = frames[:usable]
        if original != fitted:
            changes.append(f"resized from {size}")
        if abs(rate - self.rate) > _LEAST:
            changes.append(f"resampled from {rate:g} frames a second")
        facts = SampleFacts.fitted(original, fitted, centring)
        return frames, (*changes, *told_of(self.crop, place)), facts

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

    def _usable(self, found: int) -> int:
        """How many of the frames ``found``, fewer than wanted, a sample may have.

        Raises:
            UnreadableSampleError: none.
        """
        step = self.frame_step or self.frames
        count = (found - 1) // step * step + 1
        if count < 1 + step:
            raise UnreadableSampleError(
                f"too short: {found} frames at {self.rate:g} a second, not {self.frames}"
                + (f" or at least {step + 1}" if self.frame_step else "")
            )
        return count


def _pixels(frame: "VideoFrame", size: Size, centring: Centring) -> NDArray[np.uint8]:
    """One frame, upright, cropped to ``size``, ``(3, H, W)``."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    image = image.rotate(frame.rotation, expand=True)
    where = (centring[1], centring[0])
    fitted = ImageOps.fit(image, size[::-1], Image.Resampling.LANCZOS, centering=where)
    return np.ascontiguousarray(np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1))


def _upright(frame: "VideoFrame") -> Size:
    """Height and width of a frame as it is shown."""
    turned = frame.rotation % 180 != 0
    return (frame.width, frame.height) if turned else (frame.height, frame.width)
