"""Captions through tokenizers and text encoders that several families share."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def token_ids(tokenizer: Any, captions: Sequence[str], length: int, device: Any) -> Tensor:
    """Ids ``(B, length)``, cut and padded."""
    found = tokenizer(
        list(captions),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    ids: Tensor = found.input_ids.to(device)
    return ids


def last_hidden(encoder: Any, tokenizer: Any, captions: Sequence[str], length: int) -> Tensor:
    """The encoder's last layer, ``(B, length, D)``; padding is not masked."""
    states: Tensor = encoder(token_ids(tokenizer, captions, length, encoder.device))[0]
    return states


def zero_padded(encoder: Any, tokenizer: Any, captions: Sequence[str], length: int) -> Tensor:
    """The encoder's last layer, ``(B, length, D)``, 0 where a caption has no token."""
    found = tokenizer(
        list(captions),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    ).to(encoder.device)
    states: Tensor = encoder(found.input_ids, found.attention_mask)[0]
    return states.masked_fill(found.attention_mask[..., None] == 0, 0)


def pooled(encoder: Any, tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """CLIP's vector of the whole caption, ``(B, D)``."""
    ids = token_ids(tokenizer, captions, tokenizer.model_max_length, encoder.device)
    vector: Tensor = encoder(ids).pooler_output
    return vector
