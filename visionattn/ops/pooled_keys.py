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
    maps = tokens.transpose(2, 3).reshape(batch * heads, width, *grid)
    if mask is None:
        return _back(_POOL[len(grid)](maps, size), batch, heads), None
    real = mask.reshape(batch, 1, *grid).to(tokens.dtype)
    share = _POOL[len(grid)](real, size)  # of real tokens in a cell
    spread = real.repeat_interleave(heads, dim=0)
    sums = _POOL[len(grid)](maps.masked_fill(spread == 0, 0.0), size)
    means = sums / share.clamp(min=0.5 / math.prod(grid)).repeat_interleave(heads, dim=0)
    return _back(means, batch, heads), torch.flatten(share, 1) > 0


def _back(maps: Tensor, batch: int, heads: int) -> Tensor:
    return maps.reshape(batch, heads, maps.shape[1], -1).transpose(2, 3)
