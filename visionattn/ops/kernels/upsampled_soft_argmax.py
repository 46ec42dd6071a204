"""Upsampling, softmax and expectation of costs as one op, `visionattn::upsampled_soft_argmax`.

With U the trilinear interpolation to full resolution, planes p, and everything at one pixel of the answer:

    c = U logits        P = softmax over p of c         out = sum over p of p P[p]
    dlogits = U^T (dOut P[p] (p - out))

Backward, P is made again from c and the log of the sum of exponentials; nothing of the size of c is stored. On a CUDA
device (or in Triton's interpreter) kernels compute it, elsewhere the eager twin, which is the walk over tiles of
`visionattn/ops/tiled_soft_argmax.py`. It is differentiable once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionattn.ops import tiled_soft_argmax as eager
from visionattn.ops.kernels.differentiable_once import differentiable_once
from visionattn.ops.kernels.dispatch import asked_for, serves_volume
from visionattn.ops.precision import at_least_float32, without_autocast


def takes_regression(logits: Tensor, planes: int, height: int, width: int) -> bool:
    """Whether a kernel serves the case."""
    extents = tuple(zip(logits.shape[1:], (planes, height, width), strict=True))
    return asked_for(logits) and serves_volume("upsampled_soft_argmax", (logits,), extents=extents)


@torch.library.custom_op("visionattn::upsampled_soft_argmax", mutates_args=())
def upsampled_soft_argmax_op(
    logits: Tensor, planes: int, height: int, width: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """The expected plane, and what its backward needs, which has no gradient.

    Args:
        logits: [B, D, h, w], of any strides.
        planes, height, width: at full resolution.
        align_corners: as in `interpolate`.
    Returns:
        The answer [B, height, width], and the logs of the sums of exponentials, both in float32 at least.
    """
    if takes_regression(logits, planes, height, width):
        from visionattn.ops.kernels import upsampled_soft_argmax_triton as kernels

        return kernels.forward(logits, planes, height, width, align_corners)
    logits = at_least_float32(logits)
    with without_autocast(logits.device):
        matrices = eager.interpolation_matrices(logits, (planes, height, width), align_corners=align_corners)
        return eager.expectations(logits, *matrices)


@torch.library.custom_op("visionattn::upsampled_soft_argmax_backward", mutates_args=())
def upsampled_soft_argmax_backward_op(
    grad: Tensor, logits: Tensor, answer: Tensor, log_total: Tensor, planes: int, align_corners: bool
) -> Tensor:
    """The gradient of the logits from that of the answer."""
    height, width = answer.shape[1:]
    if takes_regression(logits, planes, height, width):
        from visionattn.ops.kernels import upsampled_soft_argmax_triton as kernels

        return kernels.backward(grad, logits, answer, log_total, planes, align_corners)
    costs = at_least_float32(logits)
    with without_autocast(logits.device):
        matrices = eager.interpolation_matrices(costs, (planes, height, width), align_corners=align_corners)
        return torch.empty_like(logits).copy_(eager.expectation_gradient(grad, costs, *matrices, answer, log_total))


@upsampled_soft_argmax_op.register_fake
def _fake(logits: Tensor, planes: int, height: int, width: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    answer = at_least_float32(logits).new_empty(logits.shape[0], height, width)
    return answer, torch.empty_like(answer)


@upsampled_soft_argmax_backward_op.register_fake
def _fake_backward(
    grad: Tensor, logits: Tensor, answer: Tensor, log_total: Tensor, planes: int, align_corners: bool
) -> Tensor:
    return torch.empty_like(logits)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, planes, _, _, align_corners = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(logits, *output)
    ctx.options = planes, align_corners


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return upsampled_soft_argmax_backward_op(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None


upsampled_soft_argmax_op.register_autograd(_backward, setup_context=_setup_context)
differentiable_once(upsampled_soft_argmax_backward_op)
