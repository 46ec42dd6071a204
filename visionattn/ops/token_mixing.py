"""Matrices over all pairs of positions, learned on one grid and read on another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

_RESIZED = {1: "linear", 2: "bicubic", 3: "trilinear"}


def resized_token_mixing(
    mixing: Tensor, grid: Sequence[int], bias: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """A [*grid0, *grid0] as a matrix [N, N] of another grid, and a number for every position as [N].

    Rows and columns are resized one after the other. A row sums what it takes from all positions: resized to n / n0
    times as many, it is divided by as much.

    Args:
        mixing: rows are the positions answered, columns those taken from.
        grid: the grid wanted.
        bias: [*grid0].
    """
    dims = len(grid)
    old = tuple(mixing.shape[:dims])
    count = math.prod(old)
    if old != tuple(grid):
        columns = resized_on_grid(mixing.reshape(count, *old), grid) * (count / math.prod(grid))
        rows = resized_on_grid(columns.flatten(1).mT.reshape(-1, *old), grid)
        mixing, bias = rows.flatten(1).mT, None if bias is None else resized_on_grid(bias[None], grid)[0]
    return mixing.reshape(math.prod(grid), -1), None if bias is None else bias.flatten()


def resized_on_grid(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Maps [K, *grid0] at another resolution [K, *grid]: linear, bicubic or trilinear."""
    if tuple(maps.shape[1:]) == tuple(grid):
        return maps
    return F.interpolate(maps[None], tuple(grid), mode=_RESIZED[len(grid)], align_corners=False)[0]
