"""Captions through tokenizers and text encoders that several families share."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def token_ids(tokenizer: Any, captions: Sequence[str], length: int, device: Any) -> Tensor:
    """Ids ``(B, length)``, cut and padded."""
    ids, _ = masked_ids(tokenizer, captions, length, device)
    return ids


def masked_ids(
    tokenizer: Any, captions: Sequence[str], length: int, device: Any
) -> tuple[Tensor, Tensor]:
    """Ids ``(B, length)``, cut and padded, and a mask: 1 for tokens, 0 for padding."""
    found = tokenizer(
        list(captions),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    return found.input_ids.to(device), found.attention_mask.to(device)


def last_hidden(encoder: Any, tokenizer: Any, captions: Sequence[str], length: int) -> Tensor:
    """The encoder's last layer, ``(B, length, D)``; padding is not masked."""
    states: Tensor = encoder(token_ids(tokenizer, captions, length, encoder.device))[0]
    return states


def pooled(encoder: Any, tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """CLIP's vector of the whole caption, ``(B, D)``."""
    ids = token_ids(tokenizer, captions, tokenizer.model_max_length, encoder.device)
    vector: Tensor = encoder(ids).pooler_output
    return vector


def masked_hidden(
    encoder: Any, tokenizer: Any, captions: Sequence[str], length: int
) -> tuple[Tensor, Tensor]:
    """The encoder's last layer, ``(B, length, D)``, and the mask ``(B, length)`` that it saw."""
    ids, mask = masked_ids(tokenizer, captions, length, encoder.device)
    return encoder(ids, attention_mask=mask)[0], mask


def zero_padded(encoder: Any, tokenizer: Any, captions: Sequence[str], length: int) -> Tensor:
    """The encoder's last layer, ``(B, length, D)``, 0 where a caption has no token."""
    states, mask = masked_hidden(encoder, tokenizer, captions, length)
    return states.masked_fill(mask[..., None] == 0, 0)
