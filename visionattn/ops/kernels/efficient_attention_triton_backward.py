# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::efficient_attention_backward`; the equations are those of `efficient_attention`.

One program of each:

    through_queries           a head, a part of the tokens, a tile of V's channels: its part of dG; the first tile: dQ
    merge_context_gradients   a head, a tile of K's channels: dG from its parts, always in the same order, and delta
    through_keys              a head, a tile of tokens: dK and dV

P is about 1 / N and dG about N times a token's part of it: in float16 one would vanish and the other overflow. So dG
and delta are divided by N, and P multiplied; N rounded to a power of two, of at most 2**15.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.efficient_attention_triton import ROWS_AT_ONCE, query_weights
from visionattn.ops.kernels.launching import Launch, as_bytes, number_format, padded, splits_for, value_tile


def backward(
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
    """As `efficient_attention_eager.backward`."""
    batch, heads, tokens, width = q.shape
    length, values = v.shape[-2:]
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    grad_context, delta = torch.empty_like(context), torch.empty_like(log_total)
    block_d = padded(width)
    sizes = {"D": width, "E": values, "BLOCK_D": block_d, "BLOCK_E": value_tile(block_d, values, q.dtype)}
    numbers = number_format(q.dtype)
    tiles = triton.cdiv(values, sizes["BLOCK_E"])
    launch = launch_for(block_d, q.dtype)
    splits = splits_for(tokens, batch * heads * tiles, launch.tokens, q.device)
    partial = q.new_empty(splits.parts, batch * heads, width, values, dtype=torch.float32)
    scale = float(min(1 << (length - 1).bit_length(), 2**15))
    mask_bytes, *mask_strides = as_bytes(mask)
    with on_device_of(q):
        through_queries[batch * heads, splits.parts, tiles](
            grad, q, context, partial, grad_q, heads, tokens, splits.tokens,
            *grad.stride(), *q.stride(), *grad_q.stride(), 1 / temperature,
            **sizes, **numbers, BLOCK_N=launch.tokens, TILES=tiles, NORMALIZE=normalize_queries, **launch.options(),
        )  # fmt: skip
        merge_context_gradients[batch * heads, triton.cdiv(width, ROWS_AT_ONCE)](
            partial, context, grad_context, delta, splits.parts, 1 / scale,
            D=width, E=values, BLOCK_D=ROWS_AT_ONCE, BLOCK_E=sizes["BLOCK_E"], num_warps=4,
        )  # fmt: skip
        blocks = triton.cdiv(length, launch.tokens)
        through_keys[(batch * heads * blocks,)](
            k, v, mask_bytes, grad_context, log_total, delta, grad_k, grad_v, heads, length, blocks, scale,
            *k.stride(), *v.stride(), *mask_strides, *grad_k.stride(), *grad_v.stride(), 1 / temperature,
            **sizes, **numbers, BLOCK_N=launch.tokens, TILES=tiles, **launch.options(),
        )  # fmt: skip
    return grad_q, grad_k, grad_v


def launch_for(block_d: int, dtype: torch.dtype) -> Launch:
    """By the padded width of a head; chosen so that nothing spills when compiled for sm_90."""
    if dtype == torch.float32:
        return Launch(16 if block_d > 64 else 32, 8, 1)
    return Launch(64, 4, 2) if block_d <= 32 else Launch(32 if block_d > 64 else 64, 8, 2)


@triton.jit
def through_queries(
    grad_ptr, q_ptr, context_ptr, partial_ptr, grad_q_ptr, heads, tokens, split_tokens,
    grad_b, grad_h, grad_n, grad_e, q_b, q_h, q_n, q_d, out_b, out_h, out_n, out_d, inverse_temperature,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, TILES: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    head, split, tile = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    row = tl.num_programs(0) * split.to(tl.int64) + head
    b, h = head // heads, head % heads
    d, e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    grad_ptr += b * grad_b + h * grad_h
    q_ptr += b * q_b + h * q_h
    grad_q_ptr += b * out_b + h * out_h
    context_ptr += head * D * E
    grad_context = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
    start = split * split_tokens
    for first in range(start, tl.minimum(start + split_tokens, tokens), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        queries = query_weights(q_ptr, n, d, tokens, q_n, q_d, inverse_temperature, D=D, NORMALIZE=NORMALIZE)
        own = tile * BLOCK_E + e
        inside = (n < tokens)[:, None] & (own < E)[None, :]
        grad = tl.load(grad_ptr + n[:, None] * grad_n + own[None, :] * grad_e, mask=inside, other=0.0)
        grad_context = tl.dot(tl.trans(queries).to(DOT), grad.to(DOT), grad_context, input_precision=PRECISION)
        if tile == 0:  # which sees the gradient of every tile
            grad_queries = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
            for other in range(TILES):
                at = other * BLOCK_E + e
                inside = (n < tokens)[:, None] & (at < E)[None, :]
                grad = tl.load(grad_ptr + n[:, None] * grad_n + at[None, :] * grad_e, mask=inside, other=0.0)
                # [E, D]
                context = tl.load(
                    context_ptr + d[None, :] * E + at[:, None], mask=(d < D)[None, :] & (at < E)[:, None], other=0.0
                )
                grad_queries = tl.dot(grad.to(DOT), context.to(DOT), grad_queries, input_precision=PRECISION)
            if NORMALIZE:
                grad_queries = queries * (grad_queries - tl.sum(queries * grad_queries, 1)[:, None])
            tl.store(
                grad_q_ptr + n[:, None] * out_n + d[None, :] * out_d,
                (grad_queries * inverse_temperature).to(grad_q_ptr.dtype.element_ty),
                mask=(n < tokens)[:, None] & (d < D)[None, :],
            )
    own = tile * BLOCK_E + e
    inside = (d < D)[:, None] & (own < E)[None, :]
    tl.store(partial_ptr + (row * D + d[:, None]) * E + own[None, :], grad_context, mask=inside)


@triton.jit
def merge_context_gradients(
    partial_ptr, context_ptr, grad_context_ptr, delta_ptr, splits, inverse_scale,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    head, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    delta = tl.zeros([BLOCK_D], tl.float32)
    for first in range(0, E, BLOCK_E):
        e = first + tl.arange(0, BLOCK_E)
        inside = (d < D)[:, None] & (e < E)[None, :]
        gradient = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
        for split in range(splits):
            at = (split * rows + head) * D + d
            gradient += tl.load(partial_ptr + at[:, None] * E + e[None, :], mask=inside, other=0.0)
        gradient *= inverse_scale
        at = (head * D + d[:, None]) * E + e[None, :]
        delta += tl.sum(gradient * tl.load(context_ptr + at, mask=inside, other=0.0), 1)
        tl.store(grad_context_ptr + at, gradient, mask=inside)
    tl.store(delta_ptr + head * D + d, delta, mask=d < D)


@triton.jit
def through_keys(
    k_ptr, v_ptr, mask_ptr, grad_context_ptr, log_total_ptr, delta_ptr, grad_k_ptr, grad_v_ptr,
    heads, tokens, blocks, scale,
    k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_e, mask_b, mask_n,
    gk_b, gk_h, gk_n, gk_d, gv_b, gv_h, gv_n, gv_e, inverse_temperature,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    b, h = head // heads, head % heads
    n, d = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    held, real = n < tokens, n < tokens
    if mask_ptr is not None:
        real &= tl.load(mask_ptr + b * mask_b + n * mask_n, mask=held, other=0) != 0
    inside = real[:, None] & (d < D)[None, :]
    k_ptr += b * k_b + h * k_h
    v_ptr += b * v_b + h * v_h
    grad_v_ptr += b * gv_b + h * gv_h
    grad_context_ptr += head * D * E
    keys = tl.load(k_ptr + n[:, None] * k_n + d[None, :] * k_d, mask=inside, other=0.0).to(tl.float32)
    log_total = tl.load(log_total_ptr + head * D + d, mask=d < D, other=0.0)
    # Chosen after the exponential: what is masked must not overflow into NaN.
    weights = tl.where(inside, tl.exp(keys * inverse_temperature - log_total[None, :]) * scale, 0.0)
    grad_weights = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for tile in range(TILES):
        e = tile * BLOCK_E + tl.arange(0, BLOCK_E)
        at = n[:, None] * v_n + e[None, :] * v_e
        values = tl.load(v_ptr + at, mask=real[:, None] & (e < E)[None, :], other=0.0)
        grad_context = tl.load(
            grad_context_ptr + d[:, None] * E + e[None, :], mask=(d < D)[:, None] & (e < E)[None, :], other=0.0
        )
        grad_weights = tl.dot(values.to(DOT), tl.trans(grad_context).to(DOT), grad_weights, input_precision=PRECISION)
        grad_values = tl.dot(weights.to(DOT), grad_context.to(DOT), input_precision=PRECISION)
        tl.store(
            grad_v_ptr + n[:, None] * gv_n + e[None, :] * gv_e,
            grad_values.to(grad_v_ptr.dtype.element_ty),
            mask=held[:, None] & (e < E)[None, :],
        )
    delta = tl.load(delta_ptr + head * D + d, mask=d < D, other=0.0)
    grad_keys = weights * (grad_weights - delta[None, :]) * inverse_temperature
    tl.store(
        grad_k_ptr + b * gk_b + h * gk_h + n[:, None] * gk_n + d[None, :] * gk_d,
        grad_keys.to(grad_k_ptr.dtype.element_ty),
        mask=held[:, None] & (d < D)[None, :],
    )
