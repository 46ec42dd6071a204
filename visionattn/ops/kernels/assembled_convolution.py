"""What the 2-D convolutions of a folded first layer add up to, as one op, `visionattn::assembled_convolution`.

    out[d, y, x] = L[e, y, x] + S[y, x - d] - [x = W - 1] T[y, d],  e = min(x - d, 2), where x >= d - 2, else 0

for planes d = 1, .., D - 2, in channels last; the first and the last plane are parts of their own. L (e from -2 to 2),
S and T are the parts of `visionattn/ops/concatenation_convolution.py`, where the equation comes from.

Backward: the gradients of L's first four and of T are lines through dOut; that of L[2] is its sum over d for one x,
that of S its sum over d for one x - d. It needs no part again.

On a CUDA device (or in Triton's interpreter) kernels compute it, elsewhere the eager twin. It is differentiable once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionattn.ops import concatenation_convolution as eager
from visionattn.ops.kernels.differentiable_once import differentiable_once
from visionattn.ops.kernels.dispatch import asked_for, serves_volume
from visionattn.ops.kernels.memory_order import empty_volume
from visionattn.ops.precision import at_least_float32


def takes_assembly(tensors: tuple[Tensor, ...], outputs: int, disparities: int) -> bool:
    """Whether a kernel serves the case.

    Args:
        tensors: what goes in, maps [B, .., H, W].
        outputs: channels of the answer.
        disparities: its planes.
    """
    height, width = tensors[0].shape[-2:]
    elements = outputs * disparities * height * width
    return asked_for(tensors[0]) and serves_volume("assembled_convolution", tensors, elements=elements)


@torch.library.custom_op("visionattn::assembled_convolution", mutates_args=())
def assembled_convolution_op(of_left: Tensor, of_right: Tensor, beyond: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The first layer's answer; the parts are those of `concatenation_parts`, of any strides.

    Args:
        of_left: L [B, 5, O, H, W].
        of_right: S [B, O, H, W + 2], at x - d = -2, .., W - 1.
        beyond: T [B, O, H, D].
        first, last: planes [B, O, H, W].
    Returns:
        [B, O, D, H, W] in the dtype of the parts, channels last in memory.
    """
    parts = of_left, of_right, beyond, first, last
    if takes_assembly(parts, of_left.shape[2], beyond.shape[3]):
        from visionattn.ops.kernels import assembled_convolution_triton as kernels

        return kernels.forward(*parts)
    volume = eager.assembled(*(at_least_float32(t) for t in parts))
    return empty_volume(of_left, *volume.shape).copy_(volume)


@torch.library.custom_op("visionattn::assembled_convolution_backward", mutates_args=())
def assembled_convolution_backward_op(grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the parts from that of the answer, channels last in memory."""
    of_left, of_right, beyond, first, last = _fake_backward(grad)
    if asked_for(grad) and serves_volume("assembled_convolution", (grad,)):
        from visionattn.ops.kernels import assembled_convolution_triton as kernels

        kernels.backward(grad, of_left, of_right, beyond)
        first.copy_(grad[:, :, 0])
        last.copy_(grad[:, :, -1])
    else:
        gradients = eager.assembled_gradients(at_least_float32(grad))
        for part, gradient in zip((of_left, of_right, beyond, first, last), gradients, strict=True):
            part.copy_(gradient)
    return of_left, of_right, beyond, first, last


@assembled_convolution_op.register_fake
def _fake(of_left: Tensor, of_right: Tensor, beyond: Tensor, first: Tensor, last: Tensor) -> Tensor:
    batch, _, outputs, height, width = of_left.shape
    return empty_volume(of_left, batch, outputs, beyond.shape[3], height, width)


@assembled_convolution_backward_op.register_fake
def _fake_backward(grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, outputs, disparities, height, width = grad.shape

    def empty(columns: int) -> Tensor:
        return grad.new_empty(batch, height, columns, outputs).permute(0, 3, 1, 2)

    of_left = grad.new_empty(batch, height, width, 5, outputs).permute(0, 3, 4, 1, 2)
    return of_left, empty(width + 2), empty(disparities), empty(width), empty(width)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Nothing is kept."""


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return assembled_convolution_backward_op(grad)


assembled_convolution_op.register_autograd(_backward, setup_context=_setup_context)
differentiable_once(assembled_convolution_backward_op)
