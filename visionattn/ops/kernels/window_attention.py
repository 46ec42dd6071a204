"""Attention inside shifted windows as one op, `visionattn::window_attention`, straight from the projected map.

    P = softmax over the keys of a window of (Q K^T scale + bias)         out = P V

scale = D^-1/2; with a scale per head, rows of Q and K are divided by their lengths first (cosines, as in Swin V2). The
bias is the row of a table for the offset between query and key. Where the windows reach beyond the map there are keys
as well (`padding`), but no queries. The backward, in closed form, recomputes P from the log of its sums, L:

    P = exp(logits - L)     dP = dOut V^T       S = P * (dP - sum over keys of P * dP)
    dV = P^T dOut           dQ = S K scale      dK = S^T Q scale        dbias = S, summed over windows and by offset

then through the lengths, where there are any. On a CUDA device (or in Triton's interpreter) kernels compute it,
elsewhere the eager twin. It is differentiable once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionattn.ops.kernels import window_attention_eager as eager
from visionattn.ops.kernels.differentiable_once import differentiable_once
from visionattn.ops.kernels.dispatch import asked_for, serves_windows
from visionattn.ops.kernels.window_case import WindowCase
from visionattn.ops.precision import at_least_float32


@torch.library.custom_op("visionattn::window_attention", mutates_args=())
def window_attention_op(
    qkv: Tensor,
    table: Tensor | None,
    padding: Tensor | None,
    scale: Tensor | None,
    mask: Tensor | None,
    window: Sequence[int],
    shift: Sequence[int],
    mask_padding: bool,
    shift_before_padding: bool,
) -> tuple[Tensor, Tensor]:
    """The answer, and what its backward needs; of these two only the answer has a gradient.

    Args:
        qkv: [B, H, W, 3, heads, D], of any strides.
        table: [(2 h - 1) (2 w - 1), heads] for windows of h x w, row-major in the offset query - key; None is zeros.
        padding: [2, heads, D], k and v where there is padding; None is zeros.
        scale: [heads], of the logits, which are cosines then; None is D^-1/2 of logits that are products.
        mask: [B, H W] bool, True where a key is real; a query that sees no key answers 0.
        window, shift: of both axes; 0 <= shift < window.
        mask_padding: False lets padding be seen.
        shift_before_padding: rolls the unpadded map and pads behind its seam, instead of padding first.
    Returns:
        The answer [B, H, W, heads, D], and the log of its sums of exponentials [B, heads, H W], 0 without any key, in
        float32 at least.
    """
    case = WindowCase(qkv, table, padding, scale, mask, window, shift, mask_padding, shift_before_padding)
    if asked_for(qkv) and serves_windows(qkv, mask, window):
        from visionattn.ops.kernels import window_attention_triton as kernels

        return kernels.forward(case)
    return eager.forward(case)


@torch.library.custom_op("visionattn::window_attention_backward", mutates_args=())
def window_attention_backward_op(
    grad: Tensor,
    qkv: Tensor,
    table: Tensor | None,
    padding: Tensor | None,
    scale: Tensor | None,
    mask: Tensor | None,
    log_total: Tensor,
    window: Sequence[int],
    shift: Sequence[int],
    mask_padding: bool,
    shift_before_padding: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of qkv, table, padding and scale from that of the answer; without elements for those not there."""
    case = WindowCase(qkv, table, padding, scale, mask, window, shift, mask_padding, shift_before_padding)
    if asked_for(qkv) and serves_windows(qkv, mask, window):
        from visionattn.ops.kernels import window_attention_triton_backward as kernels

        return kernels.backward(grad, case, log_total)
    return eager.backward(grad, case, log_total)


@window_attention_op.register_fake
def _fake(qkv: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    batch, height, width, _, heads, channels = qkv.shape
    log_total = qkv.new_empty(batch, heads, height * width, dtype=at_least_float32(qkv).dtype)
    return qkv.new_empty(batch, height, width, heads, channels), log_total


@window_attention_backward_op.register_fake
def _fake_backward(
    grad: Tensor, qkv: Tensor, table: Tensor | None, padding: Tensor | None, scale: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_table, grad_padding, grad_scale = (eager.empty_gradient(t, qkv) for t in (table, padding, scale))
    return torch.empty_like(qkv), grad_table, grad_padding, grad_scale


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.options = inputs[5:]


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    given = ctx.saved_tensors[:4]
    gradients = window_attention_backward_op(grad, *ctx.saved_tensors, *ctx.options)
    mine = (None if t is None else gradient for t, gradient in zip(given, gradients, strict=True))
    return *mine, None, None, None, None, None


window_attention_op.register_autograd(_backward, setup_context=_setup_context)
differentiable_once(window_attention_backward_op)
