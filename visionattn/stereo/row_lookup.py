"""How RAFT-Stereo reads correlations around the last disparity, at several widths of the right map's rows.

Both give the same numbers. The stored form takes memory that grows with the square of the width and is quick at every
step; the lean form correlates a few rows at a time, anew at every step and in the backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.correlation_windows import correlation_windows
from visionattn.ops.row_matching import row_correlation
from visionattn.ops.row_sampling import row_windows


class StoredRowLookup:
    """Correlations of whole rows, kept for all steps ("reg" of the official code).

    Args:
        left, right: [B, C, H, W].
        levels: each has rows of half the width of the one before.
        radius: positions to each side that are read, at every level.
    """

    def __init__(self, left: Tensor, right: Tensor, levels: int, radius: int) -> None:
        rows = row_correlation(left, right)
        self.radius = radius
        self.pyramid = [rows]
        for _ in range(levels - 1):
            rows = F.avg_pool1d(rows.flatten(0, 1), 2).unflatten(0, rows.shape[:2])
            self.pyramid.append(rows)

    def __call__(self, centre: Tensor) -> Tensor:
        """[B, levels * (2 * radius + 1), H, W] around positions [B, H, W] of the right map."""
        windows = [row_windows(rows, centre / 2**level, self.radius) for level, rows in enumerate(self.pyramid)]
        return torch.cat(windows, dim=-1).permute(0, 3, 1, 2)


class LeanRowLookup:
    """Correlations made when they are read ("alt" of the official code), and made again for the backward.

    Args:
        left, right: [B, C, H, W].
        levels, radius: as `StoredRowLookup`.
    """

    def __init__(self, left: Tensor, right: Tensor, levels: int, radius: int) -> None:
        self.left = left
        self.radius = radius
        self.pyramid = [right]
        for _ in range(levels - 1):
            self.pyramid.append(F.avg_pool2d(self.pyramid[-1], (1, 2)))

    def __call__(self, centre: Tensor) -> Tensor:
        """[B, levels * (2 * radius + 1), H, W] around positions [B, H, W] of the right map."""
        windows = [
            correlation_windows(self.left, right, centre / 2**level, self.radius)
            for level, right in enumerate(self.pyramid)
        ]
        return torch.cat(windows, dim=-1).permute(0, 3, 1, 2)
