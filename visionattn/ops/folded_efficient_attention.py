"""The whole efficient-attention mixer, projections included, folded: exact, with less work and far less memory.

With X [C, N], heads h, P_h = softmax over tokens of K_h, R_h = softmax over channels of Q_h (Shen et al., WACV 2021):

    G_h = V_h P_h^T = Wv_h (X P_h^T) + bv_h 1^T      rows of P_h sum to 1: V is never computed
    y = Wp [G_1 R_1; ..; G_H R_H] + bp = M R         columns of R_h sum to 1: bp / H is added to M
    M = [Wp_1 G_1, .., Wp_H G_H] + bp 1^T / H        the attended values are never computed
    bk cancels in the softmax over tokens: its gradient is 0

What grows with N: four matrix products of C x D x N forward, in two walks over the tokens (see `folded_passes`).
Not valid when anything acts between V and the projection, or between qkv or proj and their outputs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionattn.ops.folded_gradients import QueryKeyGradients, input_gradients, mixing_gradient
from visionattn.ops.folded_passes import chunk_length, mix_inputs, weigh_inputs


def folded_efficient_attention(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor | None,
    *,
    num_heads: int,
    key_dim: int,
    temperature: float = 1.0,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """residual + scale * proj(efficient attention of qkv(x)), differentiable once.

    Args:
        x: [B, N, C] float32 or float64 on the CPU, N >= 1, of any strides; fast where tokens (channels last) or
            channels (channels first) are contiguous.
        qkv_weight: [2 * key_dim + value_dim, C]: queries, keys, values.
        qkv_bias: [2 * key_dim + value_dim].
        proj_weight: [C, value_dim].
        proj_bias: [C].
        num_heads: divides key_dim and value_dim.
        key_dim: width of the queries and of the keys over all heads.
        temperature: divides queries and keys before their softmax.
        residual: [B, N, C], added in the same walk; x itself is best.
        scale: [C], multiplies the mixer's output.
    Returns:
        [B, N, C] in the memory order of x.
    """
    adds_x = residual is x
    tensors = (x, qkv_weight, qkv_bias, proj_weight, proj_bias, None if adds_x else residual, scale)
    options = _Options(num_heads, key_dim, temperature, adds_x)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Folded.apply(options, *tensors)
    return _forward(options, *tensors, keep=False)[0]


class _Options(NamedTuple):
    """What is not a tensor."""

    heads: int
    key_dim: int
    temperature: float
    adds_x: bool


class _Weights(NamedTuple):
    """The layers' weights in the shapes that the walks and the folding want."""

    query: Tensor  # [D, C], divided by the temperature, as the next two
    query_bias: Tensor  # [D]
    key: Tensor  # [C, D]
    value: Tensor  # [heads, e, C]
    output: Tensor  # [heads, C, e]


class _Image(NamedTuple):
    """What the backward needs of one image."""

    exponentials: Tensor  # [N * D], E = exp(K - shift) in chunks [n, D]
    queries: Tensor  # [D * N], R in chunks [D, n]
    totals: Tensor  # [D], row sums of E
    weighted: Tensor  # [C, D], X P^T
    context: Tensor  # [heads, e, d], G
    mixing: Tensor  # [C, D], M without the scale


def _weights(options: _Options, qkv_weight: Tensor, qkv_bias: Tensor | None, proj_weight: Tensor) -> _Weights:
    heads, dim, temperature, _ = options
    query, key, value = qkv_weight.tensor_split((dim, 2 * dim))
    bias = qkv_weight.new_zeros(dim) if qkv_bias is None else qkv_bias[:dim]
    if temperature != 1.0:
        query, bias, key = query / temperature, bias / temperature, key / temperature
    return _Weights(
        query, bias, key.t().contiguous(), value.view(heads, -1, value.shape[1]), _by_head(proj_weight, heads)
    )


def _forward(
    options: _Options,
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor | None,
    residual: Tensor | None,
    scale: Tensor | None,
    *,
    keep: bool,
) -> tuple[Tensor, list[_Image]]:
    heads, dim = options.heads, options.key_dim
    weights = _weights(options, qkv_weight, qkv_bias, proj_weight)
    value_bias = None if qkv_bias is None else qkv_bias[2 * dim :].view(heads, -1, 1)
    share_of_bias = None if proj_bias is None else (proj_bias / heads)[:, None]
    out = torch.empty_like(x)
    length = chunk_length(x[0].t(), dim)
    images = []
    for b in range(len(x)):
        image = x[b].t()
        exponentials, queries = (x.new_empty(image.shape[1] * dim) if keep else None for _ in range(2))
        weighted, totals = weigh_inputs(image, weights.key, length, exponentials)
        weighted /= totals
        context = torch.bmm(weights.value, _by_head(weighted, heads))
        if value_bias is not None:
            context += value_bias
        mixing = _side_by_side(torch.bmm(weights.output, context))
        if share_of_bias is not None:
            mixing += share_of_bias
        mix_inputs(
            image,
            weights.query,
            weights.query_bias,
            mixing if scale is None else mixing * scale[:, None],
            heads,
            length,
            image if options.adds_x else None if residual is None else residual[b].t(),
            out[b].t(),
            queries,
        )
        if exponentials is not None and queries is not None:
            images.append(_Image(exponentials, queries, totals, weighted, context, mixing))
    return out, images


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: _Options, *tensors: Tensor | None) -> Tensor:
        out, images = _forward(options, *tensors, keep=True)  # type: ignore[arg-type]  # x and the weights are tensors
        ctx.options = options
        ctx.save_for_backward(*tensors, *(tensor for image in images for tensor in image))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, qkv_weight, qkv_bias, proj_weight, proj_bias, residual, scale, *saved = ctx.saved_tensors
        heads, dim, temperature, adds_x = ctx.options
        weights = _weights(ctx.options, qkv_weight, qkv_bias, proj_weight)
        length = chunk_length(x[0].t(), dim)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        sums = QueryKeyGradients(*(torch.zeros_like(t) for t in (weights.query, weights.query_bias, weights.key)))
        grad_value, grad_output = torch.zeros_like(weights.value), torch.zeros_like(weights.output)
        grad_value_bias = x.new_zeros(weights.value.shape[:2])
        grad_proj_bias = None if proj_bias is None else torch.zeros_like(proj_bias)
        grad_scale = None if scale is None else torch.zeros_like(scale)
        for b in range(len(x)):
            image = _Image(*saved[b * len(_Image._fields) : (b + 1) * len(_Image._fields)])
            grad_map, mixing = grad[b].t(), image.mixing
            grad_mixing = mixing_gradient(grad_map, image.queries, length)
            if scale is not None and grad_scale is not None:
                grad_scale += (grad_mixing * mixing).sum(1)
                grad_mixing, mixing = grad_mixing * scale[:, None], mixing * scale[:, None]
            if grad_proj_bias is not None:
                grad_proj_bias += grad_mixing.sum(1) / heads

            # From M back to what it is made of: small matrices, by head.
            grad_by_head = _by_head(grad_mixing, heads)
            grad_output.baddbmm_(grad_by_head, image.context.mT)
            grad_context = torch.bmm(weights.output.mT, grad_by_head)
            grad_value_bias += grad_context.sum(2)
            grad_value.baddbmm_(grad_context, _by_head(image.weighted, heads).mT)
            grad_sums = _side_by_side(torch.bmm(weights.value.mT, grad_context)) / image.totals

            input_gradients(
                x[b].t(),
                grad_map,
                image.queries,
                image.exponentials,
                query_weight=weights.query,
                key_weight=weights.key,
                mixing=mixing,
                grad_sums=grad_sums,
                delta=(grad_sums * image.weighted).sum(0),
                heads=heads,
                length=length,
                weights=sums if ctx.needs_input_grad[2] or ctx.needs_input_grad[3] else None,
                out=None if grad_x is None else grad_x[b].t(),
                add_grad=adds_x,
            )
        grad_qkv = torch.cat(
            [sums.query_weight / temperature, sums.key_weight.t() / temperature, grad_value.flatten(0, 1)]
        )
        grad_qkv_bias = None
        if qkv_bias is not None:
            parts = (sums.query_bias / temperature, torch.zeros_like(sums.query_bias), grad_value_bias.flatten())
            grad_qkv_bias = torch.cat(parts)
        grad_proj = _side_by_side(grad_output)
        grad_residual = None if residual is None else grad
        return None, grad_x, grad_qkv, grad_qkv_bias, grad_proj, grad_proj_bias, grad_residual, grad_scale


def _by_head(matrix: Tensor, heads: int) -> Tensor:
    """[C, heads * d] as the view [heads, C, d]."""
    return matrix.view(len(matrix), heads, -1).transpose(0, 1)


def _side_by_side(by_head: Tensor) -> Tensor:
    """[heads, C, d] to [C, heads * d]."""
    return by_head.transpose(0, 1).flatten(1)
