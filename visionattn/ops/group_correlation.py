"""`group_correlation_volume` in one walk: written where 3-D convolutions read it, no product of whole maps kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionattn.ops.cost_volume import check_groups
from visionattn.ops.kernels.memory_order import empty_volume

_CHUNK_BYTES = 2**22
"""Of each map at a time."""


def walked_group_correlation(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    """`group_correlation_volume`, differentiable once.

    Args:
        left, right: [B, C, H, W].
        disparities: D, how many; beyond W the volume is 0.
        groups: divides C.
    Returns:
        [B, groups, D, H, W], channels last in memory.
    Raises:
        ValueError: groups does not divide C.
    """
    check_groups(left, right, disparities, groups)
    return _Walked.apply(left, right, disparities, groups)


class _Walked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
        ctx.save_for_backward(left, right)
        return correlations(left, right, disparities, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *correlation_gradients(grad, *ctx.saved_tensors), None, None


def correlations(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    """As `walked_group_correlation`, without a derivative."""
    batch, channels, height, width = left.shape
    out = empty_volume(left, batch, groups, disparities, height, width).zero_()
    for chunk, (ours, theirs) in _chunks(groups, left, right):
        for disparity in range(min(disparities, width)):
            products = ours[..., disparity:] * theirs[..., : width - disparity]
            out[:, chunk, disparity, :, disparity:] = products.sum(2)  # a sum straight into them is slower
    return out.mul_(groups / channels)


def correlation_gradients(grad: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both maps from that of the volume."""
    groups, disparities = grad.shape[1:3]
    to_left, to_right = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (left, right))
    width, scale = left.shape[3], groups / left.shape[1]
    walk = zip(_chunks(groups, left, right), _chunks(groups, to_left, to_right), strict=True)
    for (chunk, (ours, theirs)), (_, (to_ours, to_theirs)) in walk:
        for disparity in range(min(disparities, width)):
            seen = grad[:, chunk, disparity, :, disparity:].unsqueeze(2)
            to_ours[..., disparity:].addcmul_(seen, theirs[..., : width - disparity], value=scale)
            to_theirs[..., : width - disparity].addcmul_(seen, ours[..., disparity:], value=scale)
    return to_left, to_right


def _chunks(groups: int, left: Tensor, right: Tensor) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
    """Which groups, and the channels of both maps in them: views [B, n, C / groups, H, W]."""
    maps = torch.unflatten(left, 1, (groups, -1)), torch.unflatten(right, 1, (groups, -1))
    step = max(1, _CHUNK_BYTES * groups // max(1, left.numel() * left.element_size())) if left.is_cpu else groups
    for start in range(0, groups, step):
        chunk = slice(start, start + step)
        yield chunk, (maps[0][:, chunk], maps[1][:, chunk])
