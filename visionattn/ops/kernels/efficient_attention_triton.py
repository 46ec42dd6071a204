# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::efficient_attention`, forward; the second part of the sum over tokens is merged in order.

One program of each:

    partial_context   a head, a part of the tokens, a tile of V's channels: online softmax of K and its product with V
    merge_contexts    a head, a tile of K's channels: the parts, always in the same order, so that repeats are bit-equal
    mix_context       a head, a tile of tokens, a tile of V's channels: softmax of Q and its product with the context

Letters: D channels of q and k per head, E of v, N tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.launching import Launch, as_bytes, number_format, padded, splits_for, value_tile
from visionattn.ops.kernels.memory_order import empty_answer

ROWS_AT_ONCE = 16


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, temperature: float, normalize_queries: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `efficient_attention_eager.forward`."""
    batch, heads, tokens, width = q.shape
    length, values = v.shape[-2:]
    answer = empty_answer(q, v)
    context = q.new_empty(batch, heads, width, values, dtype=torch.float32)
    log_total = q.new_empty(batch, heads, width, dtype=torch.float32)
    block_d = padded(width)
    sizes = {"D": width, "E": values, "BLOCK_D": block_d, "BLOCK_E": value_tile(block_d, values, q.dtype)}
    numbers = number_format(q.dtype)
    tiles = triton.cdiv(values, sizes["BLOCK_E"])
    launch = launch_for(block_d, q.dtype)
    splits = splits_for(length, batch * heads * tiles, launch.tokens, q.device)
    partial = q.new_empty(splits.parts, batch * heads, width, values, dtype=torch.float32)
    largest = q.new_empty(splits.parts, batch * heads, width, dtype=torch.float32)
    total = torch.empty_like(largest)
    mask_bytes, *mask_strides = as_bytes(mask)
    with on_device_of(q):
        partial_context[batch * heads, splits.parts, tiles](
            k, v, mask_bytes, partial, largest, total,
            heads, length, splits.tokens, *k.stride(), *v.stride(), *mask_strides, 1 / temperature,
            **sizes, **numbers, BLOCK_N=launch.tokens, **launch.options(),
        )  # fmt: skip
        merge_contexts[batch * heads, triton.cdiv(width, ROWS_AT_ONCE)](
            partial, largest, total, context, log_total, splits.parts,
            D=width, E=values, BLOCK_D=ROWS_AT_ONCE, BLOCK_E=sizes["BLOCK_E"], num_warps=4,
        )  # fmt: skip
        blocks = triton.cdiv(tokens, launch.tokens)
        mix_context[batch * heads * blocks, tiles](
            q, context, answer, heads, tokens, blocks, *q.stride(), *answer.stride(), 1 / temperature,
            **sizes, **numbers, BLOCK_N=launch.tokens, NORMALIZE=normalize_queries, **launch.options(),
        )  # fmt: skip
    return answer, context, log_total


def launch_for(block_d: int, dtype: torch.dtype) -> Launch:
    """By the padded width of a head; chosen so that nothing spills when compiled for sm_90."""
    if dtype == torch.float32:
        return Launch(32, 4, 2) if block_d <= 64 else Launch(16, 8, 2)
    return Launch(64, 4 if block_d <= 32 else 8, 3)


@triton.jit
def partial_context(
    k_ptr, v_ptr, mask_ptr, partial_ptr, largest_ptr, total_ptr,
    heads, tokens, split_tokens,
    k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_e, mask_b, mask_n, inverse_temperature,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head, split, tile = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    row = tl.num_programs(0) * split.to(tl.int64) + head
    b, h = head // heads, head % heads
    d, e = tl.arange(0, BLOCK_D), tile * BLOCK_E + tl.arange(0, BLOCK_E)
    k_ptr += b * k_b + h * k_h
    v_ptr += b * v_b + h * v_h
    largest = tl.full([BLOCK_D], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_D], tl.float32)
    context = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
    start = split * split_tokens
    for first in range(start, tl.minimum(start + split_tokens, tokens), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        real = n < tokens
        if mask_ptr is not None:
            real &= tl.load(mask_ptr + b * mask_b + n * mask_n, mask=real, other=0) != 0
        # [D, N] in whatever order memory has.
        keys = tl.load(k_ptr + d[:, None] * k_d + n[None, :] * k_n, mask=(d < D)[:, None] & real[None, :], other=0.0)
        keys = tl.where(real[None, :], keys.to(tl.float32) * inverse_temperature, float("-inf"))
        values = tl.load(v_ptr + n[:, None] * v_n + e[None, :] * v_e, mask=real[:, None] & (e < E)[None, :], other=0.0)
        higher = tl.maximum(largest, tl.max(keys, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)  # no real key yet
        shrink = tl.exp(largest - shift)
        weights = tl.exp(keys - shift[:, None])
        total = total * shrink + tl.sum(weights, 1)
        context = tl.dot(weights.to(DOT), values.to(DOT), context * shrink[:, None], input_precision=PRECISION)
        largest = higher
    inside = (d < D)[:, None] & (e < E)[None, :]
    tl.store(partial_ptr + (row * D + d[:, None]) * E + e[None, :], context, mask=inside)
    if tile == 0:
        tl.store(largest_ptr + row * D + d, largest, mask=d < D)
        tl.store(total_ptr + row * D + d, total, mask=d < D)


@triton.jit
def merge_contexts(
    partial_ptr, largest_ptr, total_ptr, context_ptr, log_total_ptr, splits,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    head, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    largest = tl.full([BLOCK_D], float("-inf"), tl.float32)
    for split in range(splits):
        at = (split * rows + head) * D + d
        largest = tl.maximum(largest, tl.load(largest_ptr + at, mask=d < D, other=float("-inf")))
    shift = tl.where(largest == float("-inf"), 0.0, largest)
    total = tl.zeros([BLOCK_D], tl.float32)
    for split in range(splits):
        at = (split * rows + head) * D + d
        share = tl.exp(tl.load(largest_ptr + at, mask=d < D, other=float("-inf")) - shift)
        total += tl.load(total_ptr + at, mask=d < D, other=0.0) * share
    total = tl.where(total > 0, total, 1.0)  # no real key: a context of zeros, the log 0
    tl.store(log_total_ptr + head * D + d, shift + tl.log(total), mask=d < D)
    for first in range(0, E, BLOCK_E):
        e = first + tl.arange(0, BLOCK_E)
        inside = (d < D)[:, None] & (e < E)[None, :]
        context = tl.zeros([BLOCK_D, BLOCK_E], tl.float32)
        for split in range(splits):
            at = (split * rows + head) * D + d
            share = tl.exp(tl.load(largest_ptr + at, mask=d < D, other=float("-inf")) - shift)
            part = tl.load(partial_ptr + at[:, None] * E + e[None, :], mask=inside, other=0.0)
            context += part * share[:, None]
        tl.store(context_ptr + (head * D + d[:, None]) * E + e[None, :], context / total[:, None], mask=inside)


@triton.jit
def mix_context(
    q_ptr, context_ptr, answer_ptr, heads, tokens, blocks,
    q_b, q_h, q_n, q_d, answer_b, answer_h, answer_n, answer_e, inverse_temperature,
    D: tl.constexpr, E: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    b, h = head // heads, head % heads
    n, d = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    queries = query_weights(
        q_ptr + b * q_b + h * q_h, n, d, tokens, q_n, q_d, inverse_temperature, D=D, NORMALIZE=NORMALIZE
    )
    context_ptr += head * D * E
    inside = (d < D)[:, None] & (e < E)[None, :]
    context = tl.load(context_ptr + d[:, None] * E + e[None, :], mask=inside, other=0.0)
    answer = tl.dot(queries.to(DOT), context.to(DOT), input_precision=PRECISION)
    answer_ptr += b * answer_b + h * answer_h
    tl.store(
        answer_ptr + n[:, None] * answer_n + e[None, :] * answer_e,
        answer.to(answer_ptr.dtype.element_ty),
        mask=(n < tokens)[:, None] & (e < E)[None, :],
    )


@triton.jit
def query_weights(q_ptr, n, d, tokens, q_n, q_d, inverse_temperature, D: tl.constexpr, NORMALIZE: tl.constexpr):
    """Softmax over channels of the tokens n, or just their queries: [N, D], 0 in channels that pad."""
    inside = (n < tokens)[:, None] & (d < D)[None, :]
    queries = tl.load(q_ptr + n[:, None] * q_n + d[None, :] * q_d, mask=inside, other=0.0).to(tl.float32)
    queries *= inverse_temperature
    if NORMALIZE:
        queries = tl.where((d < D)[None, :], queries, float("-inf"))
        queries = tl.exp(queries - tl.max(queries, 1)[:, None])
        queries /= tl.sum(queries, 1)[:, None]
    return queries
