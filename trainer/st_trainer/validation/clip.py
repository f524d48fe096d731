"""CLIP score: how well a picture fits its caption; Hessel et al. 2021, equation 1 with w = 100."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from st_shared.spec.validation import ClipSpec
from st_trainer.errors import BadSpecError

METRIC = "clip_score"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SPREAD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on; a model's own file may say otherwise."""
_FRAMES = 8
"""Frames of a video that are scored, evenly spread."""


class ClipScore:
    """A CLIP model on the CPU, which is moved to the device while it scores."""

    def __init__(self, spec: ClipSpec, device: torch.device) -> None:
        """Load it.

        Raises:
            BadSpecError: there is no such model, or it is no CLIP.
        """
        from transformers import AutoTokenizer, CLIPModel  # noqa: PLC0415 -- seconds

        try:
            model: Any = CLIPModel.from_pretrained(spec.model)
            self._model = model.eval().requires_grad_(False)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(spec.model)
            self._mean, self._spread = _moments(spec.model)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            said = str(error).strip().splitlines()[0]
            raise BadSpecError(
                f"training.validation.clip.model: {spec.model} cannot be loaded as CLIP: {said}; "
                "give a folder with a CLIPModel and its tokenizer, or drop validation.clip"
            ) from None
        self._device = device

    @torch.no_grad()
    def __call__(self, samples: Sequence[Tensor], captions: Sequence[str]) -> list[float]:
        """The score of each sample, bytes ``(C, H, W)`` or ``(C, F, H, W)``: 0 to 100."""
        model = self._model.to(self._device)
        try:
            return [self._score(model, *pair) for pair in zip(samples, captions, strict=True)]
        finally:
            self._model.to("cpu")

    def _score(self, model: Any, sample: Tensor, caption: str) -> float:
        tokens = self._tokenizer(
            [caption],
            truncation=True,
            max_length=model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)
        seen = model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=self._pixels(_frames(sample), model.config.vision_config.image_size),
        )
        fit = functional.cosine_similarity(seen.image_embeds, seen.text_embeds).mean()
        return max(100 * float(fit), 0.0)

    def _pixels(self, frames: Tensor, side: int) -> Tensor:
        """Frames ``(F, 3, H, W)`` of bytes as CLIP sees them: scaled and cut to a square."""
        values = frames.to(self._device).float() / 255
        if values.shape[1] == 1:
            values = values.expand(-1, 3, -1, -1)
        height, width = values.shape[-2:]
        scale = side / min(height, width)
        size = max(side, round(height * scale)), max(side, round(width * scale))
        values = functional.interpolate(values, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        values = values[..., top : top + side, left : left + side]
        mean, spread = (torch.tensor(v, device=self._device) for v in (self._mean, self._spread))
        return (values - mean[:, None, None]) / spread[:, None, None]


def _frames(sample: Tensor) -> Tensor:
    """Some frames of a sample, ``(F, C, H, W)``; a picture is one."""
    if sample.dim() == 3:
        return sample[None]
    chosen = torch.linspace(0, sample.shape[1] - 1, min(_FRAMES, sample.shape[1])).long()
    return sample[:, chosen].transpose(0, 1)


def _moments(model: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and spread of pictures, as the model's file of options says."""
    file = Path(model) / "preprocessor_config.json"
    told = json.loads(file.read_bytes()) if file.is_file() else {}
    return told.get("image_mean", _MEAN), told.get("image_std", _SPREAD)
