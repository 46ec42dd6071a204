"""Keys and values averaged over the cells of a coarse grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_POOL: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def pooled_tokens(
    tokens: Tensor, grid: Sequence[int], cells: int, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The means over at most `cells` cells along each axis, and which of them hold a real token.

    Args:
        tokens: [B, heads, N, D], in row-major order of the grid.
        mask: [B, N] bool, True where a token is real; means are over those alone.
    Returns:
        [B, heads, M, D], and [B, M] bool with a mask, else None.
    """
    size = tuple(min(cells, extent) for extent in grid)
    batch, heads, _, width = tokens.shape
    maps = tokens.transpose(2, 3).reshape(batch, heads * width, *grid)
    means, real = pooled_maps(maps, size, None if mask is None else mask.reshape(batch, *grid))
    means = means.reshape(batch, heads, width, math.prod(size)).transpose(2, 3)
    return means, None if real is None else torch.flatten(real, 1)


def pooled_maps(maps: Tensor, cells: Sequence[int], mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The means of maps [B, C, *grid] over cells, [B, C, *cells], and which cells hold a real position, [B, *cells].

    Args:
        cells: how many along each axis; where there are more than positions, neighbouring cells share them.
        mask: [B, *grid] bool, True where a position is real: means are over those alone, 0 where there is none.
    """
    pool = _POOL[len(cells)]
    if mask is None:
        return pool(maps, cells), None
    real = mask[:, None].to(maps.dtype)
    share = pool(real, cells)  # of real positions in a cell
    sums = pool(maps.masked_fill(real == 0, 0.0), cells)
    smallest = 0.5 / math.prod(maps.shape[2:])
    return sums / share.clamp(min=smallest), share[:, 0] > 0
