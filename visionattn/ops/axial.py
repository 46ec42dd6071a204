"""Attention along the lines of a grid: one axis (Ho et al., 2019), or the lines of all axes that cross at a query."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.block_attention import Blocks, blocks
from visionattn.typing import Grid


def axial_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, axis: int, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Each token sees the line of the grid that runs through it along `axis`; a line without a real key answers 0.

    Args:
        q, k: [B, heads, N, D].
        v: [B, heads, N, E].
        grid: extents whose product is N.
        axis: of the grid.
        mask: [B, N] bool, True where a key is real.
        dropout: of the weights.
    Returns:
        [B, heads, N, E].
    """
    batch, heads, _, width = v.shape
    rest = [extent for number, extent in enumerate(grid) if number != axis]

    def lines(t: Tensor) -> Tensor:
        """[B, heads * lines, L, D]."""
        return t.reshape(batch, heads, *grid, t.shape[-1]).movedim(2 + axis, -2).flatten(1, -3)

    real = (
        None if mask is None else lines(mask[:, None, :, None].expand(-1, heads, -1, 1)).mT
    )  # [B, heads * lines, 1, L]
    out = F.scaled_dot_product_attention(lines(q), lines(k), lines(v), attn_mask=real, dropout_p=dropout)
    return out.reshape(batch, heads, *rest, grid[axis], width).movedim(-2, 2 + axis).flatten(2, -2)


def crossing_lines(grid: Grid, device: torch.device | None = None) -> list[Blocks]:
    """For each axis of the grid its lines; a token sees itself once, along the first axis."""
    tokens = math.prod(grid)
    parts = []
    for axis, extent in enumerate(grid):
        lines = torch.arange(tokens, device=device).view(grid).movedim(axis, -1).flatten(0, -2)
        seen = torch.ones(1, extent, extent, dtype=torch.bool, device=device)
        if axis:
            seen = ~torch.eye(extent, dtype=torch.bool, device=device)[None]
        parts.append(blocks(lines, lines, seen, tokens))
    return parts
