"""Relative positions inside a window beyond their index: tables for another window, and Swin V2's coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.typing import Grid


def resize_relative_position_bias(table: Tensor, to_window: Sequence[int], from_window: Grid | None = None) -> Tensor:
    """The bias table of another window: bicubic over the offsets, as microsoft's and mmseg's loaders do it.

    Args:
        table: [prod(2 * from - 1), heads], row-major in the offset query - key.
        to_window: the window wanted, (height, width).
        from_window: the table's own; square if None.
    Returns:
        [prod(2 * to - 1), heads], in the dtype of the table.
    Raises:
        ValueError: the table is not that of a window.
    """
    rows, heads = table.shape
    side = math.isqrt(rows)
    old = (side, side) if from_window is None else tuple(2 * length - 1 for length in from_window)
    if math.prod(old) != rows or (from_window is None and side % 2 == 0):
        window = "a square window" if from_window is None else f"window={tuple(from_window)}"
        raise ValueError(f"a relative position bias table of {rows} rows is none of {window}; give its from_window")
    new = tuple(2 * length - 1 for length in to_window)
    if new == old:
        return table
    wide = torch.promote_types(table.dtype, torch.float32)
    offsets = table.t().to(wide).reshape(1, heads, *old)
    resized = F.interpolate(offsets, new, mode="bicubic", align_corners=False)
    return resized.reshape(heads, -1).t().to(table.dtype).contiguous()


def log_spaced_offsets(window: Sequence[int], pretrained_window: Sequence[int] | None = None) -> Tensor:
    """Swin V2's coordinates of every offset in a window, equation 4: sign(x) log2(1 + |x|) / log2 8.

    x is the offset over that of the pretraining window's edge, times 8: within the window of the pretraining the
    coordinates lie in [-log2 9 / 3, log2 9 / 3].

    Args:
        window: one entry per axis.
        pretrained_window: the window in which the network that reads the coordinates was trained; `window` if None.
    Returns:
        [prod(2 * window - 1), axes] in float32, row-major in the offset query - key as `relative_position_index`.
    """
    trained = window if pretrained_window is None else pretrained_window
    axes = []
    for length, edge in zip(window, trained, strict=True):
        offset = torch.arange(1 - length, length, dtype=torch.float64) * (8 / max(edge - 1, 1))
        axes.append(offset.sign() * (offset.abs() + 1).log2() / 3)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).float()
