"""Convex upsampling (Teed and Deng, RAFT, ECCV 2020, section 3.3): fine pixels are weighted means of coarse ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast


def convex_upsampling(disparity: Tensor, logits: Tensor, factor: int) -> Tensor:
    """The disparity of a finer grid, in its pixels: every fine pixel weighs the 3 x 3 coarse ones around it.

    Beyond the border stand zeros, as published.

    Args:
        disparity: [B, h, w], in positions of its grid.
        logits: [B, 9 * factor ** 2, h, w]: neighbour, row and column within the coarse pixel.
        factor: how many fine pixels one coarse side has.
    Returns:
        [B, h * factor, w * factor], factor times as large, in float32 at least.
    Raises:
        ValueError: logits of other channels.
    """
    if logits.shape[1] != 9 * factor**2:
        raise ValueError(f"upsampling by {factor} takes {9 * factor**2} channels of logits, got {logits.shape[1]}")
    weights = at_least_float32(torch.unflatten(logits, 1, (9, factor, factor))).softmax(dim=1)
    height, width = disparity.shape[1:]
    padded = F.pad(factor * at_least_float32(disparity), (1, 1, 1, 1))
    around = torch.stack([padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)], dim=1)
    with without_autocast(logits.device):
        fine = torch.einsum("bkyxhw,bkhw->bhywx", weights, around)
    return fine.flatten(3, 4).flatten(1, 2)
