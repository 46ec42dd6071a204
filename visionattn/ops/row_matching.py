"""Matching along the rows of a rectified pair, as GMStereo does (Xu et al., TPAMI 2023, arXiv 2211.05783).

A point at x of the left map lies at x - d of the same row of the right map, with d >= 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast


def row_correlation(left: Tensor, right: Tensor) -> Tensor:
    """The scaled product of every position of a row with every position of the same row: <left, right> / sqrt(C).

    Args:
        left: [B, C, H, W].
        right: [B, C, H, W'].
    Returns:
        [B, H, W, W'], in float32 at least.
    """
    with without_autocast(left.device):
        rows, others = at_least_float32(left).permute(0, 2, 3, 1), at_least_float32(right).permute(0, 2, 1, 3)
        return (rows * left.shape[1] ** -0.5) @ others


def global_row_disparity(left: Tensor, right: Tensor) -> Tensor:
    """The expected disparity of a softmax over all positions of the right map at or left of x.

    Args:
        left, right: [B, C, H, W].
    Returns:
        [B, H, W], in positions of the map and float32 at least.
    """
    scores = row_correlation(left, right)
    column = torch.arange(scores.shape[-1], device=scores.device)
    scores = scores.masked_fill(column > column[:, None], torch.finfo(scores.dtype).min)
    column = column.to(scores.dtype)
    return column - (scores.softmax(dim=-1) * column).sum(-1)  # not a matrix product: autocast would round columns


def local_row_disparity(left: Tensor, right: Tensor, radius: int) -> Tensor:
    """The expected disparity of a softmax over the positions of the right map from x - radius to x + radius.

    Args:
        left, right: [B, C, H, W].
        radius: positions to each side; those outside the map do not take part.
    Returns:
        [B, H, W], from -radius to radius, in positions of the map and float32 at least.
    """
    width = left.shape[3]
    with without_autocast(left.device):
        left, right = at_least_float32(left) * left.shape[1] ** -0.5, F.pad(at_least_float32(right), (radius, radius))
        scores = torch.stack(
            [(left * right[..., start : start + width]).sum(1) for start in range(2 * radius + 1)], dim=-1
        )  # [B, H, W, 2 * radius + 1]
    offset = torch.arange(-radius, radius + 1, device=left.device)
    column = torch.arange(width, device=left.device)[:, None] + offset
    outside = (column < 0) | (column >= width)
    weights = scores.masked_fill(outside, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return -(weights * offset).sum(-1)
