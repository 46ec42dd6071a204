"""From costs to a disparity: the mean of all disparities, weighted by a softmax (Kendall et al., ICCV 2017)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast


def soft_argmax(logits: Tensor) -> Tensor:
    """The expected disparity in pixels.

    Args:
        logits: [B, D, H, W], the higher the likelier; one plane for each of the disparities 0 to D - 1.
    Returns:
        [B, H, W], in float32 at least.
    """
    weights = at_least_float32(logits).softmax(dim=1)
    disparities = torch.arange(logits.shape[1], dtype=weights.dtype, device=weights.device)
    with without_autocast(logits.device):  # which would round disparities to quarters of a pixel
        return torch.einsum("bdhw,d->bhw", weights, disparities)


def upsampled_soft_argmax(
    logits: Tensor, max_disparity: int, height: int, width: int, *, align_corners: bool = False
) -> Tensor:
    """`soft_argmax` of logits that are brought to full resolution first, along disparity too.

    Args:
        logits: [B, D, H, W] on a coarse grid.
        max_disparity: planes at full resolution.
        height, width: of the image.
        align_corners: as in `interpolate`.
    Returns:
        [B, height, width].
    """
    size = (max_disparity, height, width)
    full = F.interpolate(logits.unsqueeze(1), size, mode="trilinear", align_corners=align_corners)
    return soft_argmax(full.squeeze(1))
