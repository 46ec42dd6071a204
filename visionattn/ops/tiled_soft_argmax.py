"""`upsampled_soft_argmax` in tiles of rows: exact, and nothing of the size of the upsampled costs is ever held.

Linear interpolation of each axis is a product with a small matrix. Width comes first, on the coarse grid; then, tile by
tile, height and disparity, the exponentials and their two sums. What is kept for the backward has the size of the
answer: the tiles are made again there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast

_TILE_BYTES = 2**20
"""Upsampled costs of a tile, per thread: a core's own cache holds them."""

_DEVICE_TILE_BYTES = 2**27
"""The same where there is no such cache to stay in."""


def tiled_soft_argmax(
    logits: Tensor, max_disparity: int, height: int, width: int, *, align_corners: bool = False
) -> Tensor:
    """`upsampled_soft_argmax`, differentiable once.

    Args:
        logits: [B, D, H, W] on a coarse grid.
        max_disparity: planes at full resolution.
        height, width: of the image.
        align_corners: as in `interpolate`.
    Returns:
        [B, height, width], in float32 at least.
    """
    logits = at_least_float32(logits)
    with without_autocast(logits.device):
        matrices = interpolation_matrices(logits, (max_disparity, height, width), align_corners=align_corners)
        return _Tiled.apply(logits, *matrices)


def interpolation_matrices(
    logits: Tensor, size: tuple[int, int, int], *, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of planes, rows and columns: from logits [B, D, H, W] to an answer of this size."""
    planes, rows, columns = (
        interpolation_matrix(extent, points, logits, align_corners=align_corners)
        for extent, points in zip(logits.shape[1:], size, strict=True)
    )
    return planes, rows, columns


def interpolation_matrix(extent: int, size: int, like: Tensor, *, align_corners: bool) -> Tensor:
    """[size, extent], in the dtype and on the device of `like`: linear interpolation as a product."""
    points = torch.eye(extent, dtype=like.dtype, device=like.device).unsqueeze(0)
    return F.interpolate(points, size, mode="linear", align_corners=align_corners)[0].mT.contiguous()


class _Tiled(torch.autograd.Function):
    """logits [B, D, h, w] and the three matrices -> [B, H, W]."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        out, normalizer = expectations(logits, planes, rows, columns)
        ctx.save_for_backward(logits, planes, rows, columns, out, normalizer)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return expectation_gradient(grad, *ctx.saved_tensors), None, None, None


def expectations(logits: Tensor, planes: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The answer [B, H, W], and the logarithms of the sums of exponentials [B, H, W].

    Args:
        logits: [B, D, h, w].
        planes, rows, columns: as `interpolation_matrices` has them.
    """
    wide = logits @ columns.mT  # [B, D, h, W]
    out = wide.new_empty(len(wide), len(rows), len(columns))
    normalizer = torch.empty_like(out)
    moments = torch.stack([torch.ones_like(planes[:, 0]), torch.arange(len(planes)).to(planes)])
    for tile, coarse, weights in _tiles(rows, len(planes) * len(columns)):
        for image, answer, logsum in zip(wide, out, normalizer, strict=True):
            costs = planes @ (weights @ image[:, coarse]).flatten(1)  # [planes, rows * W]
            largest = costs.amax(0)
            total, weighted = moments @ _exponentials(costs, largest)
            answer[tile] = (weighted / total).view(-1, len(columns))
            logsum[tile] = largest.add_(total.log_()).view(-1, len(columns))
    return out, normalizer


def expectation_gradient(
    grad: Tensor, logits: Tensor, planes: Tensor, rows: Tensor, columns: Tensor, out: Tensor, normalizer: Tensor
) -> Tensor:
    """The gradient of the logits from that of the answer."""
    wide = logits @ columns.mT
    grad_wide = torch.zeros_like(wide)
    disparities = torch.arange(len(planes)).to(planes)[:, None]
    for tile, coarse, weights in _tiles(rows, len(planes) * len(columns)):
        for index, image in enumerate(wide):
            costs = planes @ (weights @ image[:, coarse]).flatten(1)
            shares = _exponentials(costs, normalizer[index, tile].flatten())
            shares *= disparities - out[index, tile].flatten()
            grad_rows = (planes.mT @ shares) * grad[index, tile].flatten()
            grad_wide[index, :, coarse] += weights.mT @ grad_rows.view(len(image), -1, len(columns))
    return grad_wide @ columns


def _exponentials(costs: Tensor, largest: Tensor) -> Tensor:
    """exp(costs - largest), in place; what would be next to nothing is held above the subnormal numbers.

    Processors take a hundred times as long for those. The floor lies far below what a sum beside 1 can see: e^-61 in
    float32.
    """
    floor = 0.7 * math.log(torch.finfo(costs.dtype).tiny)
    return costs.sub_(largest).clamp_(min=floor).exp_()


def _tiles(rows: Tensor, row_numbers: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows of the answer, the coarse rows that they lie between, and the weights of these [rows, coarse rows].

    Args:
        rows: the matrix [H, h].
        row_numbers: upsampled costs in a row.
    """
    budget = _TILE_BYTES * torch.get_num_threads() if rows.is_cpu else _DEVICE_TILE_BYTES
    step = max(1, budget // (row_numbers * rows.element_size()))
    met = rows.cpu() != 0
    for start in range(0, len(rows), step):
        tile = slice(start, start + step)
        seen = met[tile].any(0).nonzero()
        coarse = slice(int(seen[0]), int(seen[-1]) + 1)
        yield tile, coarse, rows[tile, coarse]
