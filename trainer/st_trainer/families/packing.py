"""Latents as tokens: squares of 2x2 values, row by row, as Flux and its kin want them."""

import torch
from torch import Tensor


def packed(latents: Tensor) -> Tensor:
    """Tokens ``(B, H/2 * W/2, 4C)`` of latents ``(B, C, H, W)``."""
    batch, channels, height, width = latents.shape
    squares = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * 4)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``packed``; ``height`` and ``width`` are those of the latents."""
    squares = tokens.reshape(len(tokens), height // 2, width // 2, -1, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)


def places(height: int, width: int, device: torch.device) -> Tensor:
    """Where each token lies: ``(H/2 * W/2, 3)`` of 0, row, column."""
    rows = torch.arange(height // 2, device=device)
    columns = torch.arange(width // 2, device=device)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    zeros = torch.zeros_like(grid[..., :1])
    return torch.cat([zeros, grid], dim=-1).reshape(-1, 3).float()
