"""A bias of pairs from two rotated vectors (Mega's rotary form of a relative bias, arXiv 2209.10655)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def rotary_bias(query: Tensor, key: Tensor, grid: Sequence[int]) -> Tensor:
    """The sum over the axes of R(i) query . R(j) key, [N, N]: a function of the offset i - j, for any grid.

    Args:
        query, key: [axes, D], one vector for each axis of the grid; D even: the first half turns with the second.
        grid: N positions.
    """
    total = query.new_zeros(*grid, *grid)
    half = query.shape[1] // 2
    rates = (torch.arange(half, dtype=query.dtype, device=query.device) * (-math.log(10000.0) / half)).exp()
    for axis, extent in enumerate(grid):
        angles = torch.arange(extent, dtype=query.dtype, device=query.device)[:, None] * rates
        shape = [1] * (2 * len(grid))
        shape[axis] = shape[len(grid) + axis] = extent
        total = total + (_turned(query[axis], angles) @ _turned(key[axis], angles).mT).view(shape)
    area = math.prod(grid)
    return total.reshape(area, area)


def _turned(vector: Tensor, angles: Tensor) -> Tensor:
    """[L, D] of a vector [D] and angles [L, D / 2]."""
    first, second = vector.chunk(2)
    sine, cosine = angles.sin(), angles.cos()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
