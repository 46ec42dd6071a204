"""A transposed 3-D convolution to twice the size, channels last from end to end.

It is the gradient of a convolution with stride 2, and PyTorch has that channels last where its transposed convolution
on the CPU answers channels first, and slower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_STRIDE, _PADDING, _DILATION, _NO_OUTPUT_PADDING = [2] * 3, [1] * 3, [1] * 3, [0] * 3


def doubling_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """`F.conv_transpose3d(x, weight, stride=2, padding=1, output_padding=1)`, differentiable once.

    Args:
        x: [B, C, D, H, W].
        weight: [C, O, 3, 3, 3].
    Returns:
        [B, O, 2 D, 2 H, 2 W], channels last in memory.
    """
    return _Doubled.apply(x.contiguous(memory_format=torch.channels_last_3d), weight)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        batch, _, *grid = x.shape
        answer_like = x.new_empty(batch, *(2 * extent for extent in grid), weight.shape[1]).movedim(-1, 1)
        out = _gradients(x, answer_like, weight, of_input=True)[0]
        return out.contiguous(memory_format=torch.channels_last_3d)  # as it is, but for float64

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        to_x, to_weight = ctx.needs_input_grad
        return (
            F.conv3d(grad, weight, stride=2, padding=1) if to_x else None,
            _gradients(x, grad, weight, of_input=False)[1] if to_weight else None,
        )


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, *, of_input: bool) -> tuple[Tensor, Tensor]:
    """The gradient of conv3d(x, weight, stride=2, padding=1) for x or for the weight, in that place of the pair."""
    wanted = [of_input, not of_input, False]
    to_x, to_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, _STRIDE, _PADDING, _DILATION, False, _NO_OUTPUT_PADDING, 1, wanted
    )
    return to_x, to_weight
