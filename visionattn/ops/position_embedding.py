"""Position embeddings learned at one grid and read at another, as vision transformers take other image sizes.

Compared with: timm 1.0.31 `timm/layers/pos_embed.py` `resample_abs_pos_embed`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def resized_position_embedding(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """The embedding of another grid: bicubic and antialiased, in float32 at least.

    Args:
        embedding: [1, P + H * W, C]: P rows of tokens that lie nowhere on the grid, which stay, then the grid's.
        old: its grid (H, W).
        new: the grid wanted.
    Returns:
        [1, P + new H * new W, C].
    Raises:
        ValueError: the embedding has fewer rows than the old grid.
    """
    prefix = embedding.shape[1] - math.prod(old)
    if prefix < 0:
        raise ValueError(f"a position embedding of {embedding.shape[1]} rows is none of a grid {old}")
    # A symbolic extent is not compared: an export would be pinned to the size it was made with.
    if all(isinstance(extent, int) for extent in new) and tuple(new) == tuple(old):
        return embedding
    rows = embedding[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    wide = torch.promote_types(embedding.dtype, torch.float32)
    resized = F.interpolate(rows.to(wide), new, mode="bicubic", antialias=True, align_corners=False)
    resized = resized.to(embedding.dtype).flatten(2).transpose(1, 2)
    return torch.cat([embedding[:, :prefix], resized], dim=1) if prefix else resized
