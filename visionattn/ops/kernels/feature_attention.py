"""Attention by products of features as one op, `visionattn::feature_attention`: linear attention and FAVOR+.

    C = phi(K)^T V / M      z = sum over keys of phi(K) / M         M keys, masked ones counted
    out = phi(Q) C / den    den = phi(Q) z + eps

without a projection phi = elu + 1; with one, W [R, D], and x' = x / D^1/4,

    phi(x) = exp(W x' - |x'|^2 / 2 - largest W x') + 1e-4

"largest" of a token for queries, of all real keys of a head and image for keys. Backward, in closed form:

    g = dOut / den          t = -(dOut . out) / den         dphi(Q) = g C^T + t z
    dC = phi(Q)^T g         dz = phi(Q)^T t                 dphi(K) = (V dC^T + dz) / M         dV = phi(K) dC / M

then through phi, the largest taken as constants. The published factor R^-1/2 cancels.
On a CUDA device (or in Triton's interpreter) kernels compute it, elsewhere the eager twin. It is differentiable once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionattn.ops.kernels import feature_attention_eager as eager
from visionattn.ops.kernels.differentiable_once import differentiable_once
from visionattn.ops.kernels.dispatch import asked_for, serves
from visionattn.ops.kernels.memory_order import empty_answer
from visionattn.ops.precision import at_least_float32


@torch.library.custom_op("visionattn::feature_attention", mutates_args=())
def feature_attention_op(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The answer, and what its backward needs; of these six only the answer has a gradient.

    Args:
        q: [B, heads, N, D], of any strides.
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        projection: W [R, D] in float32 at least, without a gradient; None for elu + 1, then R is D.
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
    Returns:
        The answer [B, heads, N, E] in the dtype of v and the memory order of q; C [B, heads, R, E], z [B, heads, R],
        den [B, heads, N], the largest of the keys [B, heads] and of the queries [B, heads, N], these two empty for
        elu + 1; all but the answer in float32 at least.
    """
    if asked_for(q) and serves("feature_attention", q, k, v, mask, projection):
        from visionattn.ops.kernels import feature_attention_triton as kernels

        return kernels.forward(q, k, v, projection, mask)
    return eager.forward(q, k, v, projection, mask)


@torch.library.custom_op("visionattn::feature_attention_backward", mutates_args=())
def feature_attention_backward_op(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor | None,
    mask: Tensor | None,
    answer: Tensor,
    context: Tensor,
    total: Tensor,
    denominators: Tensor,
    largest_key: Tensor,
    largest_query: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v from that of the answer."""
    saved = answer, context, total, denominators, largest_key, largest_query
    if asked_for(q) and serves("feature_attention", q, k, v, mask, projection):
        from visionattn.ops.kernels import feature_attention_triton_backward as kernels

        return kernels.backward(grad, q, k, v, projection, mask, *saved)
    return eager.backward(grad, q, k, v, projection, mask, *saved)


@feature_attention_op.register_fake
def _fake(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, heads, tokens, width = q.shape
    features = width if projection is None else projection.shape[0]

    def empty(*shape: int) -> Tensor:
        return q.new_empty(shape, dtype=at_least_float32(v).dtype)

    return (
        empty_answer(q, v),
        empty(batch, heads, features, v.shape[-1]),
        empty(batch, heads, features),
        empty(batch, heads, tokens),
        empty(0) if projection is None else empty(batch, heads),
        empty(0) if projection is None else empty(batch, heads, tokens),
    )


@feature_attention_backward_op.register_fake
def _fake_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor | None,
    mask: Tensor | None,
    answer: Tensor,
    context: Tensor,
    total: Tensor,
    denominators: Tensor,
    largest_key: Tensor,
    largest_query: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return *feature_attention_backward_op(grad, *ctx.saved_tensors), None, None


feature_attention_op.register_autograd(_backward, setup_context=_setup_context)
differentiable_once(feature_attention_backward_op)
