"""Reading rows between their positions: linear interpolation along the last axis, zeros outside.

Positions are float32 at least: a half precision cannot tell neighbouring columns of a wide map apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.precision import at_least_float32


def row_windows(rows: Tensor, centre: Tensor, radius: int) -> Tensor:
    """The values of a row at centre - radius, ..., centre + radius.

    Args:
        rows: [..., W].
        centre: [...], positions from 0 to W - 1 and beyond; every row has its own.
        radius: windows of 2 * radius + 1 values.
    Returns:
        [..., 2 * radius + 1].
    """
    first, share = _split(centre)
    taps = first.unsqueeze(-1) + torch.arange(-radius, radius + 2, device=rows.device)
    return _between(_taken(rows, taps), share)


def warp_by_disparity(right: Tensor, disparity: Tensor) -> Tensor:
    """The right map as the left camera would see it: at x the value of the right map at x - disparity.

    Args:
        right: [B, C, H, W].
        disparity: [B, H, W], in positions of the map.
    Returns:
        [B, C, H, W] in the dtype of right; zeros where x - disparity is outside.
    """
    first, share = _split(left_behind(disparity))
    taps = torch.stack([first, first + 1], dim=-1)  # [B, H, W, 2]
    values = _taken(right, taps.flatten(2)[:, None])  # [B, C, H, W * 2]
    return _between(torch.unflatten(values, -1, (-1, 2)), share[:, None]).squeeze(-1).to(right.dtype)


def left_behind(disparity: Tensor) -> Tensor:
    """x - disparity: where the point at x of the left map [B, H, W] lies in the right one."""
    disparity = at_least_float32(disparity)
    return torch.arange(disparity.shape[-1], dtype=disparity.dtype, device=disparity.device) - disparity


def _split(position: Tensor) -> tuple[Tensor, Tensor]:
    """The position to the left as an index, and the share of the one to the right."""
    position = at_least_float32(position)
    first = position.detach().floor()
    # Far outside is outside: an integer cannot hold every float, nor NaN.
    return first.nan_to_num(-4e6).clamp(-4e6, 4e6).long(), position - first


def _taken(rows: Tensor, index: Tensor) -> Tensor:
    """rows [..., W] at index [..., K], whose leading axes may be 1; zeros outside."""
    inside = (index >= 0) & (index < rows.shape[-1])
    index = index.clamp(0, rows.shape[-1] - 1).expand(*rows.shape[:-1], -1)
    return rows.gather(-1, index) * inside


def _between(values: Tensor, share: Tensor) -> Tensor:
    """Interpolation of neighbours: [..., K] -> [..., K - 1], with the right one's share [...]."""
    values = at_least_float32(values)
    return values[..., :-1] + share.unsqueeze(-1) * (values[..., 1:] - values[..., :-1])
