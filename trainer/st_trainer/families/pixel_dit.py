"""``pixel_dit``: a small diffusion transformer on pixels that reads captions word by word.

Blocks follow DiT with adaLN-Zero (Peebles & Xie 2023, "Scalable Diffusion Models with
Transformers", section 3.2), with cross-attention to the caption between self-attention and MLP as
in PixArt-alpha (Chen et al. 2024). The mean of the caption also joins the time embedding.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_shared.spec.families import PixelDitConfig
from st_trainer.data.captions import PADDING, Vocabulary
from st_trainer.families.family import Assets, Condition, FromScratch

_TIME_SCALE = 1000.0
"""Times in [0, 1] are stretched to the range that sinusoidal embeddings are made for."""


class PixelDitFamily(FromScratch[PixelDitConfig]):
    """Plugs ``PixelDit`` into the trainer."""

    name = "pixel_dit"

    def assets(self, config: PixelDitConfig, captions: Iterable[str]) -> Assets:
        """The vocabulary of the training captions."""
        return {"vocabulary": Vocabulary.build(captions, config.vocabulary_size).words}

    def build(self, config: PixelDitConfig, assets: Assets) -> nn.Module:
        """A transformer with random weights that predicts 0 at first."""
        return PixelDit(config, len(Vocabulary(assets["vocabulary"])))

    def sample_shape(self, config: PixelDitConfig) -> tuple[int, int, int]:
        """One square image."""
        return config.channels, config.image_size, config.image_size

    def encode(self, config: PixelDitConfig, assets: Assets, captions: Sequence[str]) -> Condition:
        """Word ids ``(B, 1 + caption_length)``."""
        vocabulary = Vocabulary(assets["vocabulary"])
        return {"words": vocabulary.encode(captions, config.caption_length)}

    def unknown_words(self, assets: Assets, caption: str) -> list[str]:
        """Words that are not in the vocabulary."""
        return Vocabulary(assets["vocabulary"]).unknown(caption)

    def predict(
        self, module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition
    ) -> Tensor:
        """One pass through the transformer."""
        velocity: Tensor = module(noisy, times, condition["words"])
        return velocity


class PixelDit(nn.Module):
    """Velocity of an image of pixels, given its time and caption."""

    def __init__(self, config: PixelDitConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.patch = config.patch_size
        patch_values = config.channels * config.patch_size**2
        width, side = config.width, config.image_size // config.patch_size
        self.patches_in = nn.Linear(patch_values, width)
        self.register_buffer("positions", sincos_positions(side, width), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.words = nn.Embedding(vocabulary_size, width, padding_idx=PADDING)
        self.word_places = nn.Parameter(0.02 * torch.randn(1 + config.caption_length, width))
        self.pooled = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.last_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last_modulation = nn.Linear(width, 2 * width)
        self.patches_out = nn.Linear(width, patch_values)
        for layer in (self.last_modulation, self.patches_out):
            zero_(layer)

    def forward(self, noisy: Tensor, times: Tensor, words: Tensor) -> Tensor:
        """Velocities ``(B, C, H, W)`` of noisy images at times ``(B,)`` with words ``(B, L)``."""
        real = words != PADDING
        caption = self.words(words) + self.word_places
        weight = real.unsqueeze(-1).to(caption.dtype)
        mean = (caption * weight).sum(1) / weight.sum(1)
        embedded = sinusoids(times * _TIME_SCALE, mean.shape[-1])
        guide = functional.silu(self.time(embedded) + self.pooled(mean))
        tokens = self.patches_in(self._cut(noisy)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, guide, caption, real)
        shift, scale = self.last_modulation(guide).unsqueeze(1).chunk(2, dim=-1)
        tokens = self.last_norm(tokens) * (1 + scale) + shift
        return self._join(self.patches_out(tokens), noisy.shape)

    def _cut(self, images: Tensor) -> Tensor:
        """Patches ``(B, N, C * P * P)`` of images ``(B, C, H, W)``, row by row."""
        return functional.unfold(images, self.patch, stride=self.patch).transpose(1, 2)

    def _join(self, patches: Tensor, shape: torch.Size) -> Tensor:
        size = shape[-2:]
        return functional.fold(patches.transpose(1, 2), size, self.patch, stride=self.patch)


class Block(nn.Module):
    """Self-attention, attention to the caption, MLP; the first and last modulated by ``guide``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.caption_norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.read = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        for layer in (self.modulation, self.read):
            zero_(layer)

    def forward(self, tokens: Tensor, guide: Tensor, caption: Tensor, real: Tensor) -> Tensor:
        """Tokens ``(B, N, D)``, given guide ``(B, D)``, caption ``(B, L, D)`` and its mask."""
        parts = self.modulation(guide).unsqueeze(1).chunk(6, dim=-1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        normed = self.norms[0](tokens) * (1 + scale) + shift
        query, key, value = self.qkv(normed).chunk(3, dim=-1)
        tokens = tokens + gate * self.attended(attention(query, key, value, self.heads))
        key, value = self.key_value(caption).chunk(2, dim=-1)
        query = self.query(self.caption_norm(tokens))
        tokens = tokens + self.read(attention(query, key, value, self.heads, real))
        normed = self.norms[1](tokens) * (1 + mlp_scale) + mlp_shift
        mixed: Tensor = tokens + mlp_gate * self.mlp(normed)
        return mixed


def attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, real: Tensor | None = None
) -> Tensor:
    """Multi-head attention of ``(B, N, D)`` to ``(B, M, D)``; ``real`` ``(B, M)`` masks keys."""

    def split(part: Tensor) -> Tensor:
        return part.view(*part.shape[:2], heads, -1).transpose(1, 2)

    mask = None if real is None else real[:, None, None, :]
    found = functional.scaled_dot_product_attention(
        split(query), split(key), split(value), attn_mask=mask
    )
    return found.transpose(1, 2).flatten(2)


def sinusoids(values: Tensor, width: int) -> Tensor:
    """Sines and cosines of ``values`` ``(B,)`` at ``width / 2`` frequencies, ``(B, width)``.

    Vaswani et al. 2017, section 3.5.
    """
    half = width // 2
    steps = torch.arange(half, device=values.device, dtype=torch.float32) / half
    angles = values.float().unsqueeze(-1) * torch.exp(-math.log(10_000.0) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sincos_positions(side: int, width: int) -> Tensor:
    """Fixed embeddings ``(side * side, width)`` of rows and columns, half the channels each."""
    places = torch.arange(side, dtype=torch.float32)
    one = sinusoids(places, width // 2)
    rows = one.repeat_interleave(side, dim=0)
    return torch.cat([rows, one.repeat(side, 1)], dim=-1)


def zero_(layer: nn.Linear) -> None:
    """Make ``layer`` give 0, so that a new block changes nothing (adaLN-Zero)."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
