"""The mixer of efficient attention with its residual as one op, `visionattn::folded_attention`.

With X [C, N], P = softmax over tokens of K = Wk X, R = softmax of each head of Q = Wq X + bq:

    answer = residual + scale * M R         M from X P^T and the other weights, `folded_efficient_attention`

X is read three times at most and nothing of the map's size is stored but the answer. Its backward is an op of its own,
in closed form, from X P^T and the log of K's sums of exponentials; W = X P^T, and dM, dW are those of small matrices:

    dM = dAnswer R^T                dR = M^T dAnswer        dQ = R * (dR - sum over channels of a head of R * dR)
    dP = dW^T X                     dK = P * (dP - delta), delta = sum over C of W * dW
    dX = Wq^T dQ + Wk^T dK + dW P   dWq = dQ X^T            dWk = dK X^T

On a CUDA device (or in Triton's interpreter) kernels compute it, elsewhere the eager twin. It is differentiable once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.kernels import folded_attention_eager as eager
from visionattn.ops.kernels.differentiable_once import differentiable_once
from visionattn.ops.kernels.dispatch import asked_for, serves_folded
from visionattn.ops.kernels.memory_order import empty_tokens
from visionattn.ops.precision import at_least_float32


@torch.library.custom_op("visionattn::folded_attention", mutates_args=())
def folded_attention_op(
    x: Tensor,
    residual: Tensor | None,
    scale: Tensor | None,
    qkv: Tensor,
    qkv_bias: Tensor | None,
    proj: Tensor,
    proj_bias: Tensor | None,
    heads: int,
    key_dim: int,
    temperature: float,
    adds_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer, and what its backward needs; of these three only the answer has a gradient.

    Args:
        x: [B, N, C], of any strides.
        residual: [B, N, C], of any strides; None where there is none or it is x itself.
        scale: [C], multiplies what is added to the residual.
        qkv: [2 D + E, C], rows of queries, keys and values; products are of numbers of its dtype, that of the layers,
            which under autocast need not be that of x, residual and scale.
        qkv_bias: [2 D + E].
        proj: [C, E].
        proj_bias: [C].
        heads: divides D and E.
        key_dim: D, of all heads.
        temperature: divides queries and keys before their softmax.
        adds_x: the residual is x.
    Returns:
        The answer [B, N, C] in the memory order of x and the dtype of the residual, that of qkv without one; X P^T
        [B, D, C] and the log of K's sums of exponentials [B, D], in float32 at least.
    """
    options, weights = Options(heads, key_dim, temperature, adds_x), Weights(qkv, qkv_bias, proj, proj_bias)
    if asked_for(x) and serves_folded((x, residual, scale), weights, key_dim, heads):
        from visionattn.ops.kernels import folded_attention_triton as kernels

        return kernels.forward(options, x, residual, scale, weights)
    return eager.forward(options, x, residual, scale, weights)


@torch.library.custom_op("visionattn::folded_attention_backward", mutates_args=())
def folded_attention_backward_op(
    grad: Tensor,
    x: Tensor,
    scale: Tensor | None,
    qkv: Tensor,
    qkv_bias: Tensor | None,
    proj: Tensor,
    proj_bias: Tensor | None,
    weighted: Tensor,
    log_total: Tensor,
    heads: int,
    key_dim: int,
    temperature: float,
    adds_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, qkv, its bias, proj, its bias and scale from that of the answer; empty of what is None."""
    options, weights = Options(heads, key_dim, temperature, adds_x), Weights(qkv, qkv_bias, proj, proj_bias)
    if asked_for(x) and serves_folded((x, grad, scale), weights, key_dim, heads):
        from visionattn.ops.kernels import folded_attention_triton_backward as kernels

        return kernels.backward(options, grad, x, scale, weights, weighted, log_total)
    return eager.backward(options, grad, x, scale, weights, weighted, log_total)


@folded_attention_op.register_fake
def _fake(
    x: Tensor,
    residual: Tensor | None,
    scale: Tensor | None,
    qkv: Tensor,
    qkv_bias: Tensor | None,
    proj: Tensor,
    proj_bias: Tensor | None,
    heads: int,
    key_dim: int,
    temperature: float,
    adds_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = at_least_float32(x).dtype
    weighted = x.new_empty(len(x), key_dim, x.shape[-1], dtype=dtype)
    added = x if adds_x else qkv if residual is None else residual
    answer = empty_tokens(x, added.dtype)
    return answer, weighted, x.new_empty(len(x), key_dim, dtype=dtype)


@folded_attention_backward_op.register_fake
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor | None,
    qkv: Tensor,
    qkv_bias: Tensor | None,
    proj: Tensor,
    proj_bias: Tensor | None,
    weighted: Tensor,
    log_total: Tensor,
    heads: int,
    key_dim: int,
    temperature: float,
    adds_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_qkv_bias, of_proj_bias, of_scale = (
        x.new_empty(0) if t is None else torch.empty_like(t) for t in (qkv_bias, proj_bias, scale)
    )
    return empty_tokens(x, x.dtype), torch.empty_like(qkv), of_qkv_bias, torch.empty_like(proj), of_proj_bias, of_scale


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, residual, scale, qkv, qkv_bias, proj, proj_bias, *options = inputs
    _, weighted, log_total = output
    ctx.mark_non_differentiable(weighted, log_total)
    ctx.save_for_backward(x, scale, qkv, qkv_bias, proj, proj_bias, weighted, log_total)
    ctx.options = options
    ctx.has = tuple(t is not None for t in (residual, scale, qkv_bias, proj_bias))


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    x, qkv, qkv_bias, proj, proj_bias, scale = folded_attention_backward_op(grad, *ctx.saved_tensors, *ctx.options)
    has_residual, has_scale, has_qkv_bias, has_proj_bias = ctx.has
    return (
        x,
        grad if has_residual else None,
        scale if has_scale else None,
        qkv,
        qkv_bias if has_qkv_bias else None,
        proj,
        proj_bias if has_proj_bias else None,
        *(None,) * 4,
    )


folded_attention_op.register_autograd(_backward, setup_context=_setup_context)
differentiable_once(folded_attention_backward_op)
