# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::feature_attention`, forward; the equations are those of `feature_attention`.

One program of each:

    partial_sums   a head, a part of the tokens, a tile of features: phi(K)^T V and the sum of phi(K)
    merge_sums     a head, some features: the parts, always in the same order, so that repeats are bit-equal
    mix_features   a head, a tile of tokens: phi(Q) C / den

The features of FAVOR+ are made in the kernels, by tiles; what they are divided by is kept online, as a softmax's is,
and their constant 1e-4 is added to the sums. Letters: D channels of q and k per head, E of v, N tokens, R features.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.feature_attention_eager import ELU_EPS, FAVOR_EPS
from visionattn.ops.kernels.launching import Launch, as_bytes, padded, splits_for, wide_number_format
from visionattn.ops.kernels.memory_order import empty_answer

ROWS_AT_ONCE = 16
FEATURE_TILE = {torch.bfloat16: 64, torch.float16: 32, torch.float32: 32}


def forward(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `feature_attention_eager.forward`."""
    batch, heads, tokens, _ = q.shape
    length, values = v.shape[-2:]
    constants, tiles = constants_of(q, v, projection)
    features, favor = constants["R"], constants["FAVOR"]

    def empty(*shape: int) -> Tensor:
        return q.new_empty(shape, dtype=torch.float32)

    answer, context, total = empty_answer(q, v), empty(batch, heads, features, values), empty(batch, heads, features)
    denominators = empty(batch, heads, tokens)
    largest_key = empty(batch, heads) if favor else empty(0)
    largest_query = empty(batch, heads, tokens) if favor else empty(0)
    launch = launch_for(constants, q.dtype)
    splits = splits_for(length, batch * heads * tiles, launch.tokens, q.device)
    rows = splits.parts, batch * heads
    partial, partial_total = empty(*rows, features, values), empty(*rows, features)
    largest, value_sums, counts = empty(*rows, tiles), empty(*rows, values), empty(*rows)
    weight = None if projection is None else projection.float().contiguous()
    mask_bytes, *mask_strides = as_bytes(mask)
    with on_device_of(q):
        partial_sums[batch * heads, splits.parts, tiles](
            k, v, weight, mask_bytes, partial, partial_total, largest, value_sums, counts,
            heads, length, splits.tokens, *k.stride(), *v.stride(), *mask_strides,
            **constants, BLOCK_N=launch.tokens, **launch.options(),
        )  # fmt: skip
        merge_sums[batch * heads, triton.cdiv(features, ROWS_AT_ONCE)](
            partial, partial_total, largest, value_sums, counts, context, total, largest_key, splits.parts, 1 / length,
            R=features, E=values, BLOCK_E=constants["BLOCK_E"], ROWS=ROWS_AT_ONCE, TILE=constants["BLOCK_R"],
            TILES=tiles, FAVOR=favor, EPS=FAVOR_EPS, num_warps=4,
        )  # fmt: skip
        blocks = triton.cdiv(tokens, launch.tokens)
        mix_features[(batch * heads * blocks,)](
            q, weight, context, total, answer, denominators, largest_query, heads, tokens, blocks, ELU_EPS / length,
            *q.stride(), *answer.stride(),
            **constants, BLOCK_N=launch.tokens, TILES=tiles, EPS=FAVOR_EPS, **launch.options(),
        )  # fmt: skip
    return answer, context, total, denominators, largest_key, largest_query


def constants_of(q: Tensor, v: Tensor, projection: Tensor | None) -> tuple[dict[str, Any], int]:
    """The constants that all kernels over tokens share, and the number of tiles of features."""
    width, values = q.shape[-1], v.shape[-1]
    features = width if projection is None else len(projection)
    tile = padded(width) if projection is None else min(padded(features), FEATURE_TILE[q.dtype])
    constants = {
        "D": width,
        "E": values,
        "R": features,
        "BLOCK_D": padded(width),
        "BLOCK_E": padded(values),
        "BLOCK_R": tile,
        "FAVOR": projection is not None,
        # An error of an exponent is one of its feature: one product of TF32 or bfloat16 would be too coarse.
        "EXPONENTS": "tf32x3",
        **wide_number_format(q.dtype),
    }
    return constants, triton.cdiv(features, tile)


def launch_for(constants: dict[str, Any], dtype: torch.dtype) -> Launch:
    """By the padded widths; chosen so that nothing spills when compiled for sm_90."""
    wide = max(constants["BLOCK_D"], constants["BLOCK_E"]) > 64
    if dtype == torch.bfloat16 and not constants["FAVOR"]:
        return Launch(32, 8, 2) if wide else Launch(64, 8, 2)
    return Launch(16, 8, 2) if wide else Launch(32, 8, 2)


@triton.jit
def partial_sums(
    k_ptr, v_ptr, w_ptr, mask_ptr, partial_ptr, total_ptr, largest_ptr, value_sums_ptr, counts_ptr,
    heads, tokens, split_tokens, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_e, mask_b, mask_n,
    D: tl.constexpr, E: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, FAVOR: tl.constexpr, EXPONENTS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head, split, tile = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    row = tl.num_programs(0) * split.to(tl.int64) + head
    b, h = head // heads, head % heads
    d, e, r = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E), tile * BLOCK_R + tl.arange(0, BLOCK_R)
    k_ptr += b * k_b + h * k_h
    v_ptr += b * v_b + h * v_h
    if FAVOR:
        w = projection_tile(w_ptr, r, d, D=D, R=R)
        largest = tl.full([], float("-inf"), tl.float32)
        value_sum = tl.zeros([BLOCK_E], tl.float32)
        count = tl.full([], 0.0, tl.float32)
    context = tl.zeros([BLOCK_R, BLOCK_E], tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    start = split * split_tokens
    for first in range(start, tl.minimum(start + split_tokens, tokens), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        real = n < tokens
        if mask_ptr is not None:
            real &= tl.load(mask_ptr + b * mask_b + n * mask_n, mask=real, other=0) != 0
        keys = tl.load(k_ptr + n[:, None] * k_n + d[None, :] * k_d, mask=real[:, None] & (d < D)[None, :], other=0.0)
        keys = keys.to(tl.float32)
        values = tl.load(v_ptr + n[:, None] * v_n + e[None, :] * v_e, mask=real[:, None] & (e < E)[None, :], other=0.0)
        inside = real[:, None] & (r < R)[None, :]
        if FAVOR:
            along, half_squares = favor_along(keys, w, D=D, EXPONENTS=EXPONENTS)
            along = tl.where(inside, along, float("-inf"))
            higher = tl.maximum(largest, tl.max(tl.max(along, 1), 0))
            shift = tl.where(higher == float("-inf"), 0.0, higher)  # no real key yet
            shrink = tl.exp(largest - shift)
            phi = tl.exp(along - half_squares[:, None] - shift)
            context *= shrink
            total *= shrink
            largest = higher
            value_sum += tl.sum(values.to(tl.float32), 0)
            count += tl.sum(real.to(tl.float32), 0)
        else:
            phi = tl.where(inside, elu_plus_one(keys), 0.0)
        total += tl.sum(phi, 0)
        context = tl.dot(tl.trans(phi).to(DOT), values.to(DOT), context, input_precision=PRECISION)
    inside = (r < R)[:, None] & (e < E)[None, :]
    tl.store(partial_ptr + (row * R + r[:, None]) * E + e[None, :], context, mask=inside)
    tl.store(total_ptr + row * R + r, total, mask=r < R)
    if FAVOR:
        tl.store(largest_ptr + row * tl.num_programs(2) + tile, largest)
        if tile == 0:
            tl.store(value_sums_ptr + row * E + e, value_sum, mask=e < E)
            tl.store(counts_ptr + row, count)


@triton.jit
def merge_sums(
    partial_ptr, partial_total_ptr, largest_ptr, value_sums_ptr, counts_ptr, context_ptr, total_ptr, largest_key_ptr,
    splits, inverse_length,
    R: tl.constexpr, E: tl.constexpr, BLOCK_E: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    TILES: tl.constexpr, FAVOR: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    head, heads = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    r, e = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK_E)
    inside = (r < R)[:, None] & (e < E)[None, :]
    context = tl.zeros([ROWS, BLOCK_E], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if FAVOR:
        largest = tl.full([], float("-inf"), tl.float32)
        for part in range(splits * TILES):
            row = (part // TILES) * heads + head
            largest = tl.maximum(largest, tl.load(largest_ptr + row * TILES + part % TILES))
        shift = tl.where(largest == float("-inf"), 0.0, largest)
        own = tl.program_id(1) * ROWS // TILE
    for split in range(splits):
        row = split * heads + head
        context_part = tl.load(partial_ptr + (row * R + r[:, None]) * E + e[None, :], mask=inside, other=0.0)
        total_part = tl.load(partial_total_ptr + row * R + r, mask=r < R, other=0.0)
        if FAVOR:
            share = tl.exp(tl.load(largest_ptr + row * TILES + own) - shift)
            value_sum = tl.load(value_sums_ptr + row * E + e, mask=e < E, other=0.0)
            context += context_part * share + EPS * value_sum[None, :]
            total += total_part * share + EPS * tl.load(counts_ptr + row)
        else:
            context += context_part
            total += total_part
    tl.store(context_ptr + (head * R + r[:, None]) * E + e[None, :], context * inverse_length, mask=inside)
    tl.store(total_ptr + head * R + r, total * inverse_length, mask=r < R)
    if FAVOR and tl.program_id(1) == 0:
        tl.store(largest_key_ptr + head, shift)


@triton.jit
def mix_features(
    q_ptr, w_ptr, context_ptr, total_ptr, answer_ptr, denominators_ptr, largest_query_ptr,
    heads, tokens, blocks, elu_eps, q_b, q_h, q_n, q_d, answer_b, answer_h, answer_n, answer_e,
    D: tl.constexpr, E: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, FAVOR: tl.constexpr, EXPONENTS: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, TILES: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    b, h = head // heads, head % heads
    n, d, e = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    inside = (n < tokens)[:, None] & (d < D)[None, :]
    q_ptr += b * q_b + h * q_h
    queries = tl.load(q_ptr + n[:, None] * q_n + d[None, :] * q_d, mask=inside, other=0.0).to(tl.float32)
    context_ptr += head * R * E
    total_ptr += head * R
    if FAVOR:
        largest = tl.full([BLOCK_N], float("-inf"), tl.float32)
        numerator = tl.zeros([BLOCK_N, BLOCK_E], tl.float32)
        denominator = tl.zeros([BLOCK_N], tl.float32)
        context_sum = tl.zeros([BLOCK_E], tl.float32)
        total_sum = tl.full([], 0.0, tl.float32)
        for tile in range(TILES):
            r = tile * BLOCK_R + tl.arange(0, BLOCK_R)
            w = projection_tile(w_ptr, r, d, D=D, R=R)
            along, half_squares = favor_along(queries, w, D=D, EXPONENTS=EXPONENTS)
            along = tl.where((r < R)[None, :], along, float("-inf"))
            higher = tl.maximum(largest, tl.max(along, 1))
            shrink = tl.exp(largest - higher)
            phi = tl.exp(along - half_squares[:, None] - higher[:, None])
            context, total = sums_tile(context_ptr, total_ptr, r, e, R=R, E=E)
            numerator = tl.dot(phi.to(DOT), context.to(DOT), numerator * shrink[:, None], input_precision=PRECISION)
            denominator = denominator * shrink + tl.sum(phi * total[None, :], 1)
            context_sum += tl.sum(context, 0)
            total_sum += tl.sum(total, 0)
            largest = higher
        numerator += EPS * context_sum[None, :]
        denominator += EPS * total_sum
        denominator = tl.where(denominator == 0, 1.0, denominator)  # no real key: the numerator is 0 too
        tl.store(largest_query_ptr + head * tokens + n, largest, mask=n < tokens)
    else:
        context, total = sums_tile(context_ptr, total_ptr, d, e, R=R, E=E)
        phi = tl.where((d < D)[None, :], elu_plus_one(queries), 0.0)
        numerator = tl.dot(phi.to(DOT), context.to(DOT), input_precision=PRECISION)
        denominator = tl.sum(phi * total[None, :], 1) + elu_eps
    tl.store(denominators_ptr + head * tokens + n, denominator, mask=n < tokens)
    answer_ptr += b * answer_b + h * answer_h
    tl.store(
        answer_ptr + n[:, None] * answer_n + e[None, :] * answer_e,
        (numerator / denominator[:, None]).to(answer_ptr.dtype.element_ty),
        mask=(n < tokens)[:, None] & (e < E)[None, :],
    )


@triton.jit
def elu_plus_one(x):
    return tl.where(x > 0, x + 1, tl.exp(x))


@triton.jit
def projection_tile(w_ptr, r, d, D: tl.constexpr, R: tl.constexpr):
    """Rows of W, [BLOCK_R, BLOCK_D]."""
    return tl.load(w_ptr + r[:, None] * D + d[None, :], mask=(r < R)[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def sums_tile(context_ptr, total_ptr, r, e, R: tl.constexpr, E: tl.constexpr):
    """C [BLOCK_R, BLOCK_E] and z [BLOCK_R] of some features."""
    context = tl.load(context_ptr + r[:, None] * E + e[None, :], mask=(r < R)[:, None] & (e < E)[None, :], other=0.0)
    return context, tl.load(total_ptr + r, mask=r < R, other=0.0)


@triton.jit
def favor_along(x, w, D: tl.constexpr, EXPONENTS: tl.constexpr):
    """W x' [BLOCK_N, BLOCK_R] and |x'|^2 / 2 [BLOCK_N] of x [BLOCK_N, BLOCK_D], x' = x / D^1/4."""
    along = tl.dot(x, tl.trans(w), input_precision=EXPONENTS) * (D**-0.25)
    return along, tl.sum(x * x, 1) * (0.5 * D**-0.5)
