# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::feature_attention_backward`; the equations are those of `feature_attention`.

One program of each:

    through_feature_queries   a head, a part of the tokens, a tile of features: dC and dz; the first: dQ
    through_feature_keys      a head, a tile of tokens: dK and dV

The parts of dC and dz are summed by PyTorch, whose sums over a dimension are the same in every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.feature_attention_eager import FAVOR_EPS
from visionattn.ops.kernels.feature_attention_triton import (
    constants_of,
    elu_plus_one,
    favor_along,
    projection_tile,
    sums_tile,
)
from visionattn.ops.kernels.launching import Launch, as_bytes, splits_for


def backward(
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
    """As `feature_attention_eager.backward`."""
    batch, heads, tokens, _ = q.shape
    length, values = v.shape[-2:]
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    constants, tiles = constants_of(q, v, projection)
    features = constants["R"]
    launch = launch_for(constants, q.dtype)
    splits = splits_for(tokens, batch * heads * tiles, launch.tokens, q.device)
    partial = q.new_empty(splits.parts, batch * heads, features, values, dtype=torch.float32)
    partial_total = q.new_empty(splits.parts, batch * heads, features, dtype=torch.float32)
    weight = None if projection is None else projection.float().contiguous()
    mask_bytes, *mask_strides = as_bytes(mask)
    with on_device_of(q):
        through_feature_queries[batch * heads, splits.parts, tiles](
            grad, answer, q, weight, context, total, denominators, largest_query, partial, partial_total, grad_q,
            heads, tokens, splits.tokens, *grad.stride(), *answer.stride(), *q.stride(), *grad_q.stride(),
            **constants, BLOCK_N=launch.tokens, TILES=tiles, EPS=FAVOR_EPS, **launch.options(),
        )  # fmt: skip
        grad_context, grad_total = partial.sum(0).div_(length), partial_total.sum(0).div_(length)
        blocks = triton.cdiv(length, launch.tokens)
        through_feature_keys[(batch * heads * blocks,)](
            k, v, weight, mask_bytes, grad_context, grad_total, largest_key, grad_k, grad_v, heads, length, blocks,
            *k.stride(), *v.stride(), *mask_strides, *grad_k.stride(), *grad_v.stride(),
            **constants, BLOCK_N=launch.tokens, TILES=tiles, EPS=FAVOR_EPS, **launch.options(),
        )  # fmt: skip
    return grad_q, grad_k, grad_v


def launch_for(constants: dict[str, Any], dtype: torch.dtype) -> Launch:
    """By the padded widths; chosen so that nothing spills when compiled for sm_90, up to 64 channels."""
    wide = max(constants["BLOCK_D"], constants["BLOCK_E"]) > 64
    if constants["FAVOR"] or wide:
        return Launch(16, 8, 1)
    return Launch(64 if dtype == torch.bfloat16 else 32, 8, 2)


@triton.jit
def through_feature_queries(
    grad_ptr, answer_ptr, q_ptr, w_ptr, context_ptr, total_ptr, denominators_ptr, largest_query_ptr,
    partial_ptr, partial_total_ptr, grad_q_ptr, heads, tokens, split_tokens,
    grad_b, grad_h, grad_n, grad_e, answer_b, answer_h, answer_n, answer_e, q_b, q_h, q_n, q_d, out_b, out_h, out_n,
    out_d,
    D: tl.constexpr, E: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, FAVOR: tl.constexpr, EXPONENTS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, TILES: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    head, split, tile = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    row = tl.num_programs(0) * split.to(tl.int64) + head
    b, h = head // heads, head % heads
    d, e, own = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E), tile * BLOCK_R + tl.arange(0, BLOCK_R)
    grad_ptr += b * grad_b + h * grad_h
    answer_ptr += b * answer_b + h * answer_h
    q_ptr += b * q_b + h * q_h
    grad_q_ptr += b * out_b + h * out_h
    context_ptr += head * R * E
    total_ptr += head * R
    denominators_ptr += head * tokens
    largest_query_ptr += head * tokens
    grad_context = tl.zeros([BLOCK_R, BLOCK_E], tl.float32)
    grad_total = tl.zeros([BLOCK_R], tl.float32)
    start = split * split_tokens
    for first in range(start, tl.minimum(start + split_tokens, tokens), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        held = n < tokens
        inside = held[:, None] & (e < E)[None, :]
        grad = tl.load(grad_ptr + n[:, None] * grad_n + e[None, :] * grad_e, mask=inside, other=0.0).to(tl.float32)
        answer = tl.load(answer_ptr + n[:, None] * answer_n + e[None, :] * answer_e, mask=inside, other=0.0)
        denominator = tl.load(denominators_ptr + n, mask=held, other=1.0)
        grad_denominator = -tl.sum(grad * answer.to(tl.float32), 1) / denominator
        grad /= denominator[:, None]
        inside = held[:, None] & (d < D)[None, :]
        queries = tl.load(q_ptr + n[:, None] * q_n + d[None, :] * q_d, mask=inside, other=0.0).to(tl.float32)
        # Tokens beyond the last have a gradient of 0: their features do not matter.
        if FAVOR:
            largest = tl.load(largest_query_ptr + n, mask=held, other=0.0)
            w = projection_tile(w_ptr, own, d, D=D, R=R)
            along, half_squares = favor_along(queries, w, D=D, EXPONENTS=EXPONENTS)
            phi = tl.exp(along - half_squares[:, None] - largest[:, None]) + EPS
        else:
            phi = elu_plus_one(queries)
        grad_context = tl.dot(tl.trans(phi).to(DOT), grad.to(DOT), grad_context, input_precision=PRECISION)
        grad_total += tl.sum(phi * grad_denominator[:, None], 0)
        if tile == 0:  # which sees all features
            if FAVOR:
                grad_queries = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
                sums = tl.zeros([BLOCK_N], tl.float32)
                for other in range(TILES):
                    r = other * BLOCK_R + tl.arange(0, BLOCK_R)
                    w = projection_tile(w_ptr, r, d, D=D, R=R)
                    along, half_squares = favor_along(queries, w, D=D, EXPONENTS=EXPONENTS)
                    exponentials = tl.exp(along - half_squares[:, None] - largest[:, None])
                    exponentials = tl.where((r < R)[None, :], exponentials, 0.0)
                    context, total = sums_tile(context_ptr, total_ptr, r, e, R=R, E=E)
                    grad_phi = tl.dot(grad.to(DOT), tl.trans(context).to(DOT), input_precision=PRECISION)
                    grad_exponents = (grad_phi + grad_denominator[:, None] * total[None, :]) * exponentials
                    grad_queries = tl.dot(grad_exponents.to(DOT), w.to(DOT), grad_queries, input_precision=PRECISION)
                    sums += tl.sum(grad_exponents, 1)
                grad_queries = grad_queries * (D**-0.25) - sums[:, None] * queries * (D**-0.5)
            else:
                context, total = sums_tile(context_ptr, total_ptr, d, e, R=R, E=E)
                grad_phi = tl.dot(grad.to(DOT), tl.trans(context).to(DOT), input_precision=PRECISION)
                grad_phi += grad_denominator[:, None] * total[None, :]
                grad_queries = tl.where(queries > 0, grad_phi, grad_phi * phi)
            tl.store(
                grad_q_ptr + n[:, None] * out_n + d[None, :] * out_d,
                grad_queries.to(grad_q_ptr.dtype.element_ty),
                mask=inside,
            )
    inside = (own < R)[:, None] & (e < E)[None, :]
    tl.store(partial_ptr + (row * R + own[:, None]) * E + e[None, :], grad_context, mask=inside)
    tl.store(partial_total_ptr + row * R + own, grad_total, mask=own < R)


@triton.jit
def through_feature_keys(
    k_ptr, v_ptr, w_ptr, mask_ptr, grad_context_ptr, grad_total_ptr, largest_key_ptr, grad_k_ptr, grad_v_ptr,
    heads, tokens, blocks, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_e, mask_b, mask_n,
    gk_b, gk_h, gk_n, gk_d, gv_b, gv_h, gv_n, gv_e,
    D: tl.constexpr, E: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, FAVOR: tl.constexpr, EXPONENTS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, TILES: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    b, h = head // heads, head % heads
    n, d, e = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    held, real = n < tokens, n < tokens
    if mask_ptr is not None:
        real &= tl.load(mask_ptr + b * mask_b + n * mask_n, mask=held, other=0) != 0
    k_ptr += b * k_b + h * k_h
    v_ptr += b * v_b + h * v_h
    grad_context_ptr += head * R * E
    grad_total_ptr += head * R
    inside = real[:, None] & (d < D)[None, :]
    keys = tl.load(k_ptr + n[:, None] * k_n + d[None, :] * k_d, mask=inside, other=0.0).to(tl.float32)
    values = tl.load(v_ptr + n[:, None] * v_n + e[None, :] * v_e, mask=real[:, None] & (e < E)[None, :], other=0.0)
    if FAVOR:
        largest = tl.load(largest_key_ptr + head)
        grad_keys = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        grad_values = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
        sums = tl.zeros([BLOCK_N], tl.float32)
        for tile in range(TILES):
            r = tile * BLOCK_R + tl.arange(0, BLOCK_R)
            chosen = real[:, None] & (r < R)[None, :]
            w = projection_tile(w_ptr, r, d, D=D, R=R)
            along, half_squares = favor_along(keys, w, D=D, EXPONENTS=EXPONENTS)
            exponentials = tl.where(chosen, tl.exp(along - half_squares[:, None] - largest), 0.0)
            phi = tl.where(chosen, exponentials + EPS, 0.0)
            grad_context, grad_total = sums_tile(grad_context_ptr, grad_total_ptr, r, e, R=R, E=E)
            grad_values = tl.dot(phi.to(DOT), grad_context.to(DOT), grad_values, input_precision=PRECISION)
            grad_phi = tl.dot(values.to(DOT), tl.trans(grad_context).to(DOT), input_precision=PRECISION)
            grad_exponents = (grad_phi + grad_total[None, :]) * exponentials
            grad_keys = tl.dot(grad_exponents.to(DOT), w.to(DOT), grad_keys, input_precision=PRECISION)
            sums += tl.sum(grad_exponents, 1)
        grad_keys = grad_keys * (D**-0.25) - sums[:, None] * keys * (D**-0.5)
    else:
        phi = tl.where(inside, elu_plus_one(keys), 0.0)
        grad_context, grad_total = sums_tile(grad_context_ptr, grad_total_ptr, d, e, R=R, E=E)
        grad_values = tl.dot(phi.to(DOT), grad_context.to(DOT), input_precision=PRECISION)
        grad_phi = tl.dot(values.to(DOT), tl.trans(grad_context).to(DOT), input_precision=PRECISION)
        grad_phi = tl.where(real[:, None], grad_phi + grad_total[None, :], 0.0)
        grad_keys = tl.where(keys > 0, grad_phi, grad_phi * phi)
    tl.store(
        grad_k_ptr + b * gk_b + h * gk_h + n[:, None] * gk_n + d[None, :] * gk_d,
        grad_keys.to(grad_k_ptr.dtype.element_ty),
        mask=held[:, None] & (d < D)[None, :],
    )
    tl.store(
        grad_v_ptr + b * gv_b + h * gv_h + n[:, None] * gv_n + e[None, :] * gv_e,
        grad_values.to(grad_v_ptr.dtype.element_ty),
        mask=held[:, None] & (e < E)[None, :],
    )
