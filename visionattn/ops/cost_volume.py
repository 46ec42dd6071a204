"""Cost volumes of stereo matching: at disparity d, the left map at x meets the right map at x - d.

Where x - d lies outside the image, the volume is 0, as in PSMNet (Chang and Chen, CVPR 2018, arXiv 1803.08669) and
GwcNet (Guo et al., CVPR 2019, arXiv 1903.04025).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def concatenation_volume(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    """The channels of both maps at every disparity from 0 on.

    Args:
        left, right: [B, C, H, W].
        disparities: D, how many; beyond W the volume is 0.
    Returns:
        [B, 2 C, D, H, W]: the left channels, then the right ones.
    """
    check_maps(left, right, disparities)
    width = left.shape[3]
    shifted = F.pad(right, (disparities - 1, 0)).unfold(3, width, 1).flip(3).transpose(2, 3)  # [B, C, D, H, W]
    column, disparity = (torch.arange(n, device=left.device) for n in (width, disparities))
    inside = (column >= disparity[:, None])[:, None]  # [D, 1, W]
    return torch.cat([left.unsqueeze(2) * inside.to(left.dtype), shifted], dim=1)


def group_correlation_volume(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    """The mean product of the channels of each group at every disparity from 0 on.

    Args:
        left, right: [B, C, H, W].
        disparities: D, how many; beyond W the volume is 0.
        groups: divides C.
    Returns:
        [B, groups, D, H, W].
    Raises:
        ValueError: groups does not divide C.
    """
    check_groups(left, right, disparities, groups)
    width = left.shape[3]
    costs = []
    for disparity in range(disparities):
        seen = max(width - disparity, 0)
        product = left[..., width - seen :] * right[..., :seen]
        costs.append(F.pad(torch.unflatten(product, 1, (groups, -1)).mean(2), (width - seen, 0)))
    return torch.stack(costs, dim=2)


def check_maps(left: Tensor, right: Tensor, disparities: int) -> None:
    """Raises ValueError unless both are maps of one shape [B, C, H, W], and there is a disparity."""
    if left.shape != right.shape or left.dim() != 4:
        raise ValueError(f"expected two maps of one shape [B, C, H, W], got {list(left.shape)} and {list(right.shape)}")
    if disparities < 1:
        raise ValueError(f"a cost volume needs one disparity or more, got {disparities}")


def check_groups(left: Tensor, right: Tensor, disparities: int, groups: int) -> None:
    """Raises ValueError as `check_maps`, and unless the groups divide the channels."""
    check_maps(left, right, disparities)
    if left.shape[1] % groups:
        raise ValueError(f"groups={groups} does not divide the {left.shape[1]} channels")
