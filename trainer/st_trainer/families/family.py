"""What the trainer asks of a model family, and the model that answers through it."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from st_shared.spec.objective import ObjectiveSpec
from st_shared.spec.section import Section
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import Images
from st_trainer.data.medium import Medium, Shape
from st_trainer.families.parts import Parts
from st_trainer.objectives.flow_matching import FlowMatching
from st_trainer.objectives.objective import Objective
from st_trainer.share import WHOLE, Share

ConfigT = TypeVar("ConfigT", bound=Section)

Assets = dict[str, Any]
"""What a model carries beside its weights: a vocabulary, or tokenizers, text encoders, VAE."""

Condition = dict[str, Tensor]
"""Encoded captions: named tensors whose first dimension counts samples."""

Encoding = dict[str, Tensor]
"""What an autoencoder makes of samples, whose first dimension counts them: ``mean`` and ``std`` of
a posterior from which latents are drawn anew each time, or their one ``value``."""

VALUE, MEAN, STD = "value", "mean", "std"

REFERENCE = "reference"
"""Name in a condition: latents ``(B, C, h, w)`` of the pictures that samples are made out of."""

Answer = Callable[[Tensor, Tensor, Condition], Tensor]
"""``Denoiser.predict``, or what does it by several processes together."""

Guide = Callable[[Tensor, Tensor], Tensor]
"""One answer of those with and without caption; it may remember those of earlier steps."""


class FamilyCode(ABC, Generic[ConfigT]):
    """The code of one family; ``st_shared.spec.families`` holds what is known without it.

    Everything that is not abstract has a default that suits a model on pixels with flow matching.
    """

    name: ClassVar[str]
    usual_guidance: ClassVar[float] = 2.0
    """Guidance of samples where the specification names none."""
    is_distilled: ClassVar[bool] = False
    """Whether guidance is told to the model, as ``condition["guidance"]``, not computed."""

    @abstractmethod
    def sample_shape(self, config: ConfigT) -> Shape:
        """Shape of one sample as data is read, values -1 to 1.

        ``(C, H, W)`` of a picture, ``(C, F, H, W)`` of a video, ``(C, L)`` of a sound.
        """

    def medium(self, config: ConfigT) -> Medium:
        """How a file becomes a sample of that shape."""
        channels, height, width = self.sample_shape(config)
        return Images(channels, height, width)

    @abstractmethod
    def encode(self, config: ConfigT, assets: Assets, captions: Sequence[str]) -> Condition:
        """Captions as tensors; the empty text is the null caption of guidance."""

    def longest(self, config: ConfigT, assets: Assets) -> Condition:
        """One caption of the greatest length, of no matter which values, to plan memory with."""
        return self.encode(config, assets, ["word"])

    def null(self, config: ConfigT, assets: Assets, condition: Condition) -> Condition | None:
        """The null caption of guidance for each sample of ``condition``; None: the empty text."""
        del config, assets, condition
        return None

    def guide(self, module: nn.Module, guidance: float) -> Guide | None:
        """How an answer is pushed away from the one without caption, while a sampler runs.

        Ho & Salimans 2022, equation 6. None: it is not, and the model answers once a step.
        """
        del module
        if guidance == 1 or self.is_distilled:
            return None

        def pushed(with_caption: Tensor, without: Tensor) -> Tensor:
            return without + guidance * (with_caption - without)

        return pushed

    @abstractmethod
    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """The answer of the model in the convention of its objective, of the shape of ``noisy``.

        ``noisy`` is ``(B, C, ...)``, ``times`` are those of the objective, ``(B,)``. The family
        turns time, sign and layout into what the network wants, and back.
        """

    def describe(self, config: ConfigT, facts: Sequence[SampleFacts]) -> Condition:
        """What the model is told of each sample beside its caption; most are told nothing."""
        del config, facts
        return {}

    def objective(self, spec: ObjectiveSpec, assets: Assets) -> Objective:
        """How the family is trained and sampled."""
        del assets
        return FlowMatching(spec)

    def latent_shape(self, config: ConfigT, assets: Assets) -> Shape:
        """Shape ``(C, ...)`` of one sample as the model sees it."""
        del assets
        return self.sample_shape(config)

    def encoded(self, assets: Assets, samples: Tensor) -> Encoding:
        """What the autoencoder makes of samples ``(B, C, ...)``, the same whenever it is asked."""
        del assets
        return {VALUE: samples}

    def drawn(
        self, assets: Assets, encoding: Encoding, generator: torch.Generator, share: Share
    ) -> Tensor:
        """Latents of a ``share`` of a batch as the model sees them, drawn from their encoding."""
        del assets, generator, share
        return encoding[VALUE]

    def samples(self, assets: Assets, latents: Tensor) -> Tensor:
        """The inverse of ``latents``: samples with values about -1 to 1."""
        del assets
        return latents

    def control(self, assets: Assets, pictures: Tensor) -> Tensor:
        """What a ControlNet, or a model that edits, reads of pictures ``(B, 3, H, W)``, 0 to 1."""
        del assets
        return pictures

    def tokens(self, shape: Shape) -> int:
        """Tokens of latents of ``shape`` ``(C, ...)``, for shifts by length."""
        count = 1
        for size in shape[1:]:
            count *= size
        return count

    def unknown_words(self, assets: Assets, caption: str) -> list[str]:
        """Words of ``caption`` that the model has never seen."""
        del assets, caption
        return []


class FromScratch(FamilyCode[ConfigT]):
    """A family whose models are built here, with random weights."""

    @abstractmethod
    def assets(self, config: ConfigT, captions: Iterable[str]) -> Assets:
        """What a new model needs to know of the training captions; JSON can hold it."""

    @abstractmethod
    def build(self, config: ConfigT, assets: Assets) -> nn.Module:
        """A new model with random weights, drawn from torch's global generator."""


@dataclass(frozen=True)
class Denoiser:
    """A model that can be trained and sampled: family, options, assets and weights."""

    family: FamilyCode[Any]
    config: Section
    assets: Assets
    module: nn.Module
    objective_spec: ObjectiveSpec = field(default_factory=ObjectiveSpec)
    computed_in: torch.dtype | None = None
    """Type that quantised weights had; None: they are as they are computed with."""
    listener: Callable[[Tensor], None] | None = None
    """Told, before each answer, how far towards noise each sample is, ``(B,)``, 0 to 1."""
    remembered: Callable[[Sequence[str]], Condition] | None = None
    """Asked for captions in place of the text encoders."""
    begun: Callable[[Tensor, int], Condition] | None = None
    """Asked for pictures that videos of so many frames begin with in place of their encoders."""
    through: Answer | None = None
    """What answers where the weights are spread over processes: all must ask it."""

    @cached_property
    def objective(self) -> Objective:
        """How it is trained and sampled."""
        return self.family.objective(self.objective_spec, self.assets)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type of most frozen weights, or of most weights where none is frozen.

        Some models keep a few parts in fp32 whatever they are loaded in.
        """
        if self.computed_in:
            return self.computed_in
        frozen = [each for each in self.module.parameters() if not each.requires_grad]
        sizes: Counter[torch.dtype] = Counter()
        for each in frozen or self.module.parameters():
            sizes[each.dtype] += each.numel()
        return sizes.most_common(1)[0][0]

    @property
    def device(self) -> torch.device:
        """Where the weights lie while they are used."""
        first = next(self.module.parameters())
        mesh = getattr(first, "device_mesh", None)  # between uses they may lie elsewhere
        return torch.device(mesh.device_type) if mesh else first.device

    @property
    def sample_shape(self) -> Shape:
        """Shape of one sample as data is read and drawn; other buckets have others."""
        return self.family.sample_shape(self.config)

    @property
    def medium(self) -> Medium:
        """What samples are: pictures, videos or sounds."""
        return self.family.medium(self.config)

    @property
    def latent_shape(self) -> Shape:
        """Shape ``(C, ...)`` of what is drawn; that of a batch follows from its bucket."""
        return self.family.latent_shape(self.config, self.assets)

    def tokens(self, latents: Tensor) -> int:
        """Tokens of one sample of ``latents`` ``(B, C, ...)``."""
        return self.family.tokens(tuple(latents.shape[1:]))

    def encode(
        self, captions: Sequence[str], facts: Sequence[SampleFacts] | None = None
    ) -> Condition:
        """Captions as tensors, on the device of the text encoders, or on the CPU.

        ``facts`` are those of the samples; without, of whole pictures that are to be drawn. Where
        a text encoder is trained, gradients flow back into it.
        """
        drawn = SampleFacts.whole(*self.sample_shape[1:][-2:])
        condition = self.texts(captions)
        told = facts or [drawn] * len(captions)
        return condition | self.family.describe(self.config, told)

    def longest(self) -> Condition:
        """What the model is told of one sample, as large as it may become."""
        told = self.family.describe(self.config, [SampleFacts.whole(*self.sample_shape[1:][-2:])])
        return self.family.longest(self.config, self.assets) | told

    def texts(self, captions: Sequence[str]) -> Condition:
        """Captions as tensors, remembered or encoded now."""
        if self.remembered:
            return self.remembered(captions)
        return self.family.encode(self.config, self.assets, captions)

    @torch.no_grad()
    def null(self, condition: Condition) -> Condition:
        """``condition`` with the null caption of guidance in place of each caption.

        What the model is told beside captions, such as sizes, stays.
        """
        count = len(next(iter(condition.values())))
        own = self.family.null(self.config, self.assets, condition)
        return condition | (self.texts([""] * count) if own is None else own)

    @torch.no_grad()
    def latents(self, samples: Tensor, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
        """Samples ``(B, C, ...)``, a ``share`` of a batch, as the model sees them."""
        encoding = self.family.encoded(self.assets, samples)
        return self.family.drawn(self.assets, encoding, generator, share)

    @torch.no_grad()
    def samples(self, latents: Tensor) -> Tensor:
        """Latents as samples with values about -1 to 1."""
        return self.family.samples(self.assets, latents)

    @torch.no_grad()
    def control(self, pictures: Tensor) -> Tensor:
        """What a ControlNet, or a model that edits, reads of pictures ``(B, 3, H, W)``, 0 to 1."""
        return self.family.control(self.assets, pictures)

    def predict(self, noisy: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The answer in the convention of the objective, of the shape and type of ``noisy``."""
        if self.through:
            return self.through(noisy, times, condition)
        dtype = self.dtype
        told = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in condition.items()
        }
        if self.listener:
            self.listener(self.objective.share(times))
        seen = self.objective.scaled(noisy, times).to(dtype)
        return self.family.predict(self.module, seen, times, told).to(noisy.dtype)

    def unknown_words(self, caption: str) -> list[str]:
        """Words of ``caption`` that the model has never seen."""
        return self.family.unknown_words(self.assets, caption)

    def to(self, device: torch.device) -> None:
        """Move what the model carries beside its weights, as far as it is made of tensors."""
        if isinstance(self.assets, Parts):
            self.assets.to(device)

    def with_module(self, module: nn.Module) -> "Denoiser":
        """The same model in another module, such as what accelerate wraps around it."""
        return replace(self, module=module)
