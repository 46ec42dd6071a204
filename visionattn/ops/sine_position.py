"""Sine position embedding of a map (Carion et al., DETR, ECCV 2020, appendix A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TEMPERATURE = 10000.0
_EPS = 1e-6


def sine_position(height: int, width: int, channels: int, *, device: torch.device | None = None) -> Tensor:
    """[height, width, channels]: the first half tells the row, the second the column; sine and cosine take turns.

    Positions count from 1 and are scaled so that the last one is 2 pi. float32.

    Raises:
        ValueError: channels is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"a sine position needs a multiple of 4 channels, got {channels}")
    period = _TEMPERATURE ** (torch.arange(channels // 4, dtype=torch.float32, device=device) * (4 / channels))

    def axis(extent: int) -> Tensor:
        position = torch.arange(1, extent + 1, dtype=torch.float32, device=device) / (extent + _EPS) * (2 * math.pi)
        angle = position[:, None] / period
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # [extent, channels / 2]

    rows, columns = axis(height)[:, None], axis(width)[None]
    return torch.cat([rows.expand(-1, columns.shape[1], -1), columns.expand(rows.shape[0], -1, -1)], dim=-1)
