"""A volume of correlations by groups of channels as one op, `visionattn::group_correlation`, channels last in memory.

    V[g, d, y, x] = mean over the channels c of group g of L[c, y, x] R[c, y, x - d]; 0 where x < d

Backward, s being the channels of a group: dL[c, y, x] = 1 / s sum over d of dV[g, d, y, x] R[c, y, x - d], and
dR[c, y, x] = 1 / s sum over d of dV[g, d, y, x + d] L[c, y, x + d].

On a CUDA device (or in Triton's interpreter) kernels compute it, elsewhere the eager twin, which is the walk of
`visionattn/ops/group_correlation.py`. It is differentiable once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionattn.ops import group_correlation as eager
from visionattn.ops.kernels.differentiable_once import differentiable_once
from visionattn.ops.kernels.dispatch import asked_for, serves_volume
from visionattn.ops.kernels.memory_order import empty_volume
from visionattn.ops.precision import at_least_float32


def takes_correlation(left: Tensor, right: Tensor, disparities: int, groups: int) -> bool:
    """Whether a kernel serves the case."""
    elements = groups * disparities * left.shape[2] * left.shape[3]
    return asked_for(left) and serves_volume("group_correlation", (left, right), elements=elements)


@torch.library.custom_op("visionattn::group_correlation", mutates_args=())
def group_correlation_op(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    """The volume.

    Args:
        left, right: [B, C, H, W], of any strides.
        disparities: D, how many; beyond W the volume is 0.
        groups: divides C.
    Returns:
        [B, groups, D, H, W] in the dtype of the maps, channels last in memory.
    """
    if takes_correlation(left, right, disparities, groups):
        from visionattn.ops.kernels import group_correlation_triton as kernels

        return kernels.forward(left, right, disparities, groups)
    return eager.correlations(at_least_float32(left), at_least_float32(right), disparities, groups).to(left.dtype)


@torch.library.custom_op("visionattn::group_correlation_backward", mutates_args=())
def group_correlation_backward_op(grad: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both maps, in their memory order, from that of the volume."""
    if asked_for(left) and serves_volume("group_correlation", (grad, left, right)):
        from visionattn.ops.kernels import group_correlation_triton as kernels

        return kernels.backward(grad, left, right)
    gradients = eager.correlation_gradients(*(at_least_float32(t) for t in (grad, left, right)))
    to_left, to_right = (torch.empty_like(t).copy_(g) for t, g in zip((left, right), gradients, strict=True))
    return to_left, to_right


@group_correlation_op.register_fake
def _fake(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    batch, _, height, width = left.shape
    return empty_volume(left, batch, groups, disparities, height, width)


@group_correlation_backward_op.register_fake
def _fake_backward(grad: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(left), torch.empty_like(right)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    left, right, _, _ = inputs
    ctx.save_for_backward(left, right)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *group_correlation_backward_op(grad, *ctx.saved_tensors), None, None


group_correlation_op.register_autograd(_backward, setup_context=_setup_context)
differentiable_once(group_correlation_backward_op)
