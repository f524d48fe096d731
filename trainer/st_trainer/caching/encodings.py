"""What a step asks of autoencoder and text encoders: remembered, or encoded now and kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from st_trainer.caching.folder import CacheFolder
from st_trainer.data.digests import content_digest
from st_trainer.data.medium import Shape
from st_trainer.data.samples import Samples
from st_trainer.families.family import Condition, Denoiser
from st_trainer.families.first_frame import Beginning, FromPicture, from_picture
from st_trainer.families.parts import Parts
from st_trainer.share import WHOLE, Share

Row = Mapping[str, Tensor]
"""The tensors of one sample or caption."""


class Kind(StrEnum):
    """What is encoded."""

    LATENTS = "latents"
    """Samples, by the autoencoder."""
    CONTROL = "control"
    """Pictures that a ControlNet, or a model that edits, reads, by the autoencoder."""
    IMAGES = "images"
    """Pictures that videos begin with, by an image encoder."""
    FIRST_FRAMES = "first_frames"
    """Videos of such a picture and nothing after it, by the autoencoder."""
    TEXT = "text"
    """Captions, by the text encoders."""


BEGINNINGS = (Kind.IMAGES, Kind.FIRST_FRAMES)
"""What a family that goes on from pictures is told of them."""


class Encodings:
    """Encodes samples and captions a few at a time; what is in a folder is not encoded again.

    Cached or not, an encoder sees the same few together, so that what is learned is the same.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        at_once: int = 1,
        folders: Mapping[Kind, CacheFolder] | None = None,
    ) -> None:
        """``folders`` hold the kinds that are cached."""
        self._denoiser, self._at_once = denoiser, at_once
        self.folders = dict(folders or {})
        self.device = denoiser.device
        """Where batches are wanted."""
        self._unneeded: tuple[str, ...] = ()

    def latents(
        self,
        samples: Samples,
        indexes: Sequence[int],
        generator: torch.Generator,
        share: Share = WHOLE,
    ) -> Tensor:
        """Latents of ``samples`` at ``indexes``, a ``share`` of a batch, drawn anew each time."""
        encoding = joined(self.rows(Kind.LATENTS, samples, indexes), self.device)
        return self._denoiser.family.drawn(self._denoiser.assets, encoding, generator, share)

    def control(self, samples: Samples, indexes: Sequence[int]) -> Tensor:
        """What is read of the conditioning pictures at ``indexes``."""
        return joined(self.rows(Kind.CONTROL, samples, indexes), self.device)["value"]

    def begins(self, samples: Samples, indexes: Sequence[int]) -> Condition:
        """What the model is told of the pictures that samples at ``indexes`` begin with.

        Nothing, where its family goes on from none.
        """
        if not isinstance(self._denoiser.family, FromPicture):
            return {}
        image, first = (self.rows(kind, samples, indexes) for kind in BEGINNINGS)
        return self._begins(image, first)

    def begun(self, pictures: Tensor, frames: int) -> Condition:
        """The same of pictures ``(B, 3, H, W)``, 0 to 1, and videos of so many frames."""
        given = Beginning(pictures, frames)

        def rows(kind: Kind) -> list[Row]:
            keys = picture_keys(kind, given) if kind in self.folders else None

            def encode(places: Sequence[int]) -> Row:
                chosen = given._replace(pictures=pictures[list(places)])
                return self.encoded(kind, chosen)

            return self._found(kind, keys, len(pictures), encode)

        image, first = map(rows, BEGINNINGS)
        return self._begins(image, first)

    def _begins(self, image: Sequence[Row], first: Sequence[Row]) -> Condition:
        family = from_picture(self._denoiser.family)
        both = (joined(rows, self.device) for rows in (image, first))
        return family.begins(self._denoiser.assets, *both)

    def texts(self, captions: Sequence[str]) -> Condition:
        """The condition of ``captions``; each text is encoded once."""
        unique = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
        rows = self.text_rows(list(unique))
        return joined([rows[unique[caption]] for caption in captions], self.device)

    def rows(self, kind: Kind, samples: Samples, indexes: Sequence[int]) -> list[Row]:
        """The encodings of samples, or of their conditioning pictures, one by one."""
        keys = key_of(kind, samples, indexes) if kind in self.folders else None

        def encode(places: Sequence[int]) -> Row:
            return self.encoded(kind, read_inputs(kind, samples, [indexes[p] for p in places]))

        return self._found(kind, keys, len(indexes), encode)

    def text_rows(self, captions: Sequence[str]) -> list[Row]:
        """The encodings of captions, one by one."""
        keys = [text_key(caption) for caption in captions] if Kind.TEXT in self.folders else None

        def encode(places: Sequence[int]) -> Row:
            return self.encoded(Kind.TEXT, [captions[place] for place in places])

        return self._found(Kind.TEXT, keys, len(captions), encode)

    @torch.no_grad()
    def encoded(self, kind: Kind, inputs: Any) -> Row:
        """What the encoders make of inputs, all together; the first dimension counts them."""
        denoiser = self._denoiser
        match kind:
            case Kind.LATENTS:
                return denoiser.family.encoded(denoiser.assets, inputs)
            case Kind.CONTROL:
                return {"value": denoiser.control(inputs)}
            case Kind.IMAGES:
                return from_picture(denoiser.family).embedded(denoiser.assets, inputs.pictures)
            case Kind.FIRST_FRAMES:
                return from_picture(denoiser.family).begun(denoiser.assets, inputs)
            case Kind.TEXT:
                return denoiser.family.encode(denoiser.config, denoiser.assets, inputs)

    def set_down(self, names: Iterable[str]) -> int:
        """Let these parts of the model leave memory, also each time that ``rest`` is asked for.

        Gives the bytes that they took. One that is used after all is loaded again.
        """
        self._unneeded = (*self._unneeded, *names)
        return self.rest()

    def rest(self) -> int:
        """Let go of what was loaded again meanwhile."""
        assets = self._denoiser.assets
        return assets.set_down(self._unneeded) if isinstance(assets, Parts) else 0

    def flush(self) -> None:
        """Return once all that was encoded is on disk."""
        for folder in self.folders.values():
            folder.flush()

    def _found(
        self,
        kind: Kind,
        keys: Sequence[bytes] | None,
        count: int,
        encode: Callable[[Sequence[int]], Row],
    ) -> list[Row]:
        """Each from the folder of ``kind``, the others encoded now and kept there."""
        folder = self.folders.get(kind)
        found: list[Row | None] = [None] * count
        if folder and keys:
            found = [folder.get(key) for key in keys]
        missing = [place for place, row in enumerate(found) if row is None]
        for start in range(0, len(missing), self._at_once):
            places = missing[start : start + self._at_once]
            for place, row in zip(places, split(encode(places), len(places)), strict=True):
                found[place] = row
                if folder and keys:
                    folder.put(keys[place], row)
        return [row for row in found if row is not None]


def key_of(kind: Kind, samples: Samples, indexes: Sequence[int]) -> list[bytes]:
    """Keys of samples, or of the pictures with them: their content, whatever their name."""
    match kind:
        case Kind.CONTROL:
            return samples.conditioning_contents(indexes)
        case Kind.IMAGES:
            return samples.first_frame_contents(indexes)
        case Kind.FIRST_FRAMES:
            shapes = samples.shapes(indexes)
            return list(map(_of_length, samples.first_frame_contents(indexes), shapes))
        case _:
            return samples.contents(indexes)


def every_key(kind: Kind, samples: Samples) -> Iterator[bytes]:
    """``key_of`` all samples."""
    match kind:
        case Kind.CONTROL:
            return samples.every_content("conditioning")
        case Kind.IMAGES:
            return samples.every_first_frame()
        case Kind.FIRST_FRAMES:
            return map(_of_length, samples.every_first_frame(), samples.every_shape())
        case _:
            return samples.every_content("content")


def _of_length(content: bytes, shape: Shape) -> bytes:
    """The key of a picture at the beginning of a video of ``shape`` ``(C, F, H, W)``."""
    return content_digest(content, str(shape[1]).encode())


def picture_keys(kind: Kind, given: Beginning) -> list[bytes]:
    """Keys of pictures that are no samples: their values."""
    shape = (3, given.frames if kind is Kind.FIRST_FRAMES else 1, *given.pictures.shape[2:])
    names = [content_digest(repr(shape).encode(), each.numpy().data) for each in given.pictures]
    return [_of_length(name, shape) for name in names]


def text_key(caption: str) -> bytes:
    """The key of a caption."""
    return content_digest(caption.encode("utf-8", "surrogatepass"))


def read_inputs(kind: Kind, samples: Samples, indexes: Sequence[int]) -> Tensor | Beginning:
    """What encoders get of samples, or of the pictures with them."""
    match kind:
        case Kind.CONTROL:
            return samples.conditioning(indexes)
        case Kind.IMAGES | Kind.FIRST_FRAMES:
            [frames] = {shape[1] for shape in samples.shapes(indexes)}
            return Beginning(samples.first_frames(indexes), frames)
        case _:
            return samples.values(indexes)


def split(encoding: Row, count: int) -> list[Row]:
    """The rows of an encoding of ``count`` inputs."""
    return [{field: tensor[place] for field, tensor in encoding.items()} for place in range(count)]


def joined(rows: Sequence[Row], device: torch.device) -> dict[str, Tensor]:
    """Rows as one batch on ``device``; zeros follow those that are shorter than the longest."""
    batch = {}
    for field in rows[0]:
        tensors = [row[field].to(device) for row in rows]
        longest = max(len(each) if each.dim() else 0 for each in tensors)
        batch[field] = torch.stack([_padded(each, longest) for each in tensors])
    return batch


def _padded(tensor: Tensor, length: int) -> Tensor:
    if tensor.dim() == 0 or len(tensor) == length:
        return tensor
    rest = tensor.new_zeros((length - len(tensor), *tensor.shape[1:]))
    return torch.cat([tensor, rest])
