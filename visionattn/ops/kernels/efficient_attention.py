"""Efficient attention as one op, `visionattn::efficient_attention`: softmax over channels of Q times the context.

    G = P^T V, P = softmax over positions of K      the context, [D, E]
    out = R G, R = softmax over channels of Q

Its backward is an op of its own, in closed form, from q, k, v, the context and the log of K's sums of exponentials:

    dG = R^T dOut           dR = dOut G^T       dQ = R * (dR - sum over channels of R * dR)
    dV = P dG               dP = V dG^T         dK = P * (dP - delta), delta = sum over channels of V of G * dG

On a CUDA device (or in Triton's interpreter) kernels compute it, elsewhere the eager twin. It is differentiable once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionattn.ops.kernels import efficient_attention_eager as eager
from visionattn.ops.kernels.differentiable_once import differentiable_once
from visionattn.ops.kernels.dispatch import asked_for, serves
from visionattn.ops.kernels.memory_order import empty_answer
from visionattn.ops.precision import at_least_float32


@torch.library.custom_op("visionattn::efficient_attention", mutates_args=())
def efficient_attention_op(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, temperature: float, normalize_queries: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer, and what its backward needs; of these three only the answer has a gradient.

    Args:
        q: [B, heads, N, D], of any strides.
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
        temperature: divides q and k before their softmax.
        normalize_queries: False leaves out the softmax of Q (not its temperature).
    Returns:
        The answer [B, heads, N, E] in the dtype of v and the memory order of q, the context [B, heads, D, E], and
        the log of K's sums of exponentials [B, heads, D], 0 without any real key; the latter in float32 at least.
    """
    if asked_for(q) and serves("efficient_attention", q, k, v, mask):
        from visionattn.ops.kernels import efficient_attention_triton as kernels

        return kernels.forward(q, k, v, mask, temperature, normalize_queries)
    return eager.forward(q, k, v, mask, temperature, normalize_queries)


@torch.library.custom_op("visionattn::efficient_attention_backward", mutates_args=())
def efficient_attention_backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    context: Tensor,
    log_total: Tensor,
    temperature: float,
    normalize_queries: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v from that of the answer."""
    if asked_for(q) and serves("efficient_attention", q, k, v, mask):
        from visionattn.ops.kernels import efficient_attention_triton_backward as kernels

        return kernels.backward(grad, q, k, v, mask, context, log_total, temperature, normalize_queries)
    return eager.backward(grad, q, k, v, mask, context, log_total, temperature, normalize_queries)


@efficient_attention_op.register_fake
def _fake(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, temperature: float, normalize_queries: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, _, width = q.shape
    dtype = at_least_float32(v).dtype
    context = q.new_empty(batch, heads, width, v.shape[-1], dtype=dtype)
    return empty_answer(q, v), context, q.new_empty(batch, heads, width, dtype=dtype)


@efficient_attention_backward_op.register_fake
def _fake_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    context: Tensor,
    log_total: Tensor,
    temperature: float,
    normalize_queries: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, mask, temperature, normalize_queries = inputs
    _, context, log_total = output
    ctx.mark_non_differentiable(context, log_total)
    ctx.save_for_backward(q, k, v, mask, context, log_total)
    ctx.options = temperature, normalize_queries


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = efficient_attention_backward_op(grad, *ctx.saved_tensors, *ctx.options)
    return *gradients, None, None, None


efficient_attention_op.register_autograd(_backward, setup_context=_setup_context)
differentiable_once(efficient_attention_backward_op)
