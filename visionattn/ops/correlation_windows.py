"""Windows of the correlation of rows, without the correlation of all rows at once.

A few rows are correlated, read and forgotten, and again in the backward: memory does not grow with the square of the
width. Compared with: `row_windows` of `row_correlation`, of which this is the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visionattn.ops.row_matching import row_correlation
from visionattn.ops.row_sampling import left_behind, row_windows

_CHUNK_BYTES = 8 * 2**20
"""Correlations held at once, but for a single row that has more."""


def correlation_windows(left: Tensor, right: Tensor, centre: Tensor, radius: int) -> Tensor:
    """<left at x, right at centre + k> / sqrt(C) for k from -radius to radius; differentiable once.

    Args:
        left: [B, C, H, W].
        right: [B, C, H, W'].
        centre: [B, H, W], positions in the right map's rows.
        radius: windows of 2 * radius + 1 values.
    Returns:
        [B, H, W, 2 * radius + 1], in float32 at least.
    """
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (left, right, centre))
    if wanted and not torch.compiler.is_compiling():
        windows: Tensor = _CorrelationWindows.apply(left, right, centre, radius)
        return windows
    return _by_rows(left, right, centre, radius)


def local_correlation(left: Tensor, right: Tensor, disparity: Tensor, radius: int) -> Tensor:
    """<left at (x, y), right at (x - disparity + i, y + j)> / sqrt(C) for i and j from -radius to radius.

    Args:
        left, right: [B, C, H, W].
        disparity: [B, H, W], in positions of the map.
        radius: windows of (2 * radius + 1) ** 2 values.
    Returns:
        [B, (2 * radius + 1) ** 2, H, W], row by row of the window, in float32 at least; zeros outside.
    """
    height, centre = left.shape[2], left_behind(disparity)
    padded = F.pad(right, (0, 0, radius, radius))
    windows = [
        correlation_windows(left, padded[:, :, start : start + height], centre, radius)
        for start in range(2 * radius + 1)
    ]
    return torch.cat(windows, dim=-1).permute(0, 3, 1, 2)


class _CorrelationWindows(torch.autograd.Function):
    """`correlation_windows`, which keeps nothing but its arguments for the backward."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, centre: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(left, right, centre)
        ctx.radius = radius
        return _by_rows(left, right, centre, radius)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        needed = [index for index in range(3) if ctx.needs_input_grad[index]]
        grads: list[Tensor | None] = [torch.empty_like(t) if i in needed else None for i, t in enumerate(saved)]
        for rows in _chunks(*saved[:2]):
            parts = [_rows_of(t, rows).detach().requires_grad_(i in needed) for i, t in enumerate(saved)]
            with torch.enable_grad():
                out = row_windows(row_correlation(parts[0], parts[1]), parts[2], ctx.radius)
            found = torch.autograd.grad(out, [parts[index] for index in needed], grad[:, rows])
            for index, part in zip(needed, found, strict=True):
                whole = grads[index]
                assert whole is not None
                _rows_of(whole, rows).copy_(part)
        return (*grads, None)


def _by_rows(left: Tensor, right: Tensor, centre: Tensor, radius: int) -> Tensor:
    windows = [
        row_windows(row_correlation(left[:, :, rows], right[:, :, rows]), centre[:, rows], radius)
        for rows in _chunks(left, right)
    ]
    return torch.cat(windows, dim=1)


def _rows_of(t: Tensor, rows: slice) -> Tensor:
    """Rows of a map [B, C, H, W] or of positions [B, H, W]."""
    return t[..., rows, :]


def _chunks(left: Tensor, right: Tensor) -> Iterator[slice]:
    """Slices of the rows, with `_CHUNK_BYTES` of correlations each."""
    batch, _, height, width = left.shape
    step = max(1, _CHUNK_BYTES // (batch * width * right.shape[3] * max(4, left.element_size())))
    for start in range(0, height, step):
        yield slice(start, start + step)
