# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::folded_attention`, forward: queries and keys are made where they are used, never stored.

One program of each holds all channels of its tokens:

    weigh_tokens   an image, a part of the tokens: online softmax of K = Wk X, and X P^T
    mix_tokens     an image, a tile of tokens: R, the softmax of each head of Q = Wq X + bq, and M R

The parts of X P^T are merged in a fixed order by `merge_contexts`; the small matrices between the two are PyTorch's.
Rows of a tile of D channels hold each head from a power of two on: `row_of` says which channel a row is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.kernels.dispatch import folded_rows, on_device_of
from visionattn.ops.kernels.efficient_attention_triton import ROWS_AT_ONCE, merge_contexts
from visionattn.ops.kernels.folded_attention_eager import scaled_mixing
from visionattn.ops.kernels.launching import Launch, number_format, padded, splits_for
from visionattn.ops.kernels.memory_order import empty_tokens


class Sizes(NamedTuple):
    """The constants of these kernels."""

    BLOCK_D: int  # rows of a tile that holds all heads
    BLOCK_C: int
    C: int
    HEADS: int
    WIDTH: int  # channels of a head
    HEAD: int  # rows of a head

    @classmethod
    def of(cls, options: Options, channels: int) -> Sizes:
        width = options.key_dim // options.heads
        rows = folded_rows(options.key_dim, options.heads)
        return cls(rows, padded(channels), channels, options.heads, width, 1 << (width - 1).bit_length())


def forward(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """As `folded_attention_eager.forward`."""
    batch, tokens, channels = x.shape
    dim, inverse_temperature = options.key_dim, 1 / options.temperature
    sizes = Sizes.of(options, channels)
    dtype = weights.qkv.dtype
    launch = launch_for(sizes, dtype)
    constants = {**sizes._asdict(), **number_format(dtype), "BLOCK_N": launch.tokens, **launch.options()}
    splits = splits_for(tokens, batch, launch.tokens, x.device)
    qkv = weights.qkv.contiguous()
    partial = x.new_empty(splits.parts, batch, dim, channels, dtype=torch.float32)
    largest = x.new_empty(splits.parts, batch, dim, dtype=torch.float32)
    total = torch.empty_like(largest)
    weighted, log_total = torch.empty_like(partial[0]), torch.empty_like(largest[0])
    with on_device_of(x):
        weigh_tokens[batch, splits.parts](
            x, qkv[dim:], partial, largest, total, tokens, splits.tokens, *x.stride(), inverse_temperature, **constants
        )
        merge_contexts[batch, triton.cdiv(dim, ROWS_AT_ONCE)](
            partial, largest, total, weighted, log_total, splits.parts,
            D=dim, E=channels, BLOCK_D=ROWS_AT_ONCE, BLOCK_E=sizes.BLOCK_C, num_warps=4,
        )  # fmt: skip
    mixing = scaled_mixing(options, weighted, scale, weights)
    added = x if options.adds_x else residual
    answer = empty_tokens(x, dtype if added is None else added.dtype)
    blocks = triton.cdiv(tokens, launch.tokens)
    with on_device_of(x):
        mix_tokens[(batch * blocks,)](
            x, added, qkv, weights.qkv_bias, mixing, answer, tokens, blocks,
            *x.stride(), *(x if added is None else added).stride(), *answer.stride(), inverse_temperature, **constants,
        )  # fmt: skip
    return answer, weighted, log_total


def launch_for(sizes: Sizes, dtype: torch.dtype) -> Launch:
    """By the rows of a tile; chosen so that nothing spills when compiled for sm_90."""
    if dtype == torch.float32:
        return Launch(32, 4, 1)
    return Launch(64, 4 if sizes.BLOCK_D <= 32 else 8, 2)


@triton.jit
def row_of(BLOCK_D: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr):
    """The channel of q or k that each row of a tile is, and whether it is one."""
    row = tl.arange(0, BLOCK_D)
    head, channel = row // HEAD, row % HEAD
    return head * WIDTH + channel, (head < HEADS) & (channel < WIDTH)


@triton.jit
def tokens_of(x_ptr, n, tokens, x_n, x_c, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """[N, BLOCK_C], 0 beyond both ends."""
    c = tl.arange(0, BLOCK_C)
    inside = (n < tokens)[:, None] & (c < C)[None, :]
    return tl.load(x_ptr + n[:, None] * x_n + c[None, :] * x_c, mask=inside, other=0.0)


@triton.jit
def rows_of(weight_ptr, row, held, C: tl.constexpr, BLOCK_C: tl.constexpr, DOT: tl.constexpr):
    """These rows of a matrix [D, C]: [BLOCK_D, BLOCK_C], 0 in those that pad."""
    c = tl.arange(0, BLOCK_C)
    at = row[:, None] * C + c[None, :]
    return tl.load(weight_ptr + at, mask=held[:, None] & (c < C)[None, :], other=0.0).to(DOT)


@triton.jit
def query_softmax(
    query, x, bias, held, inverse_temperature,
    BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, HEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """R [BLOCK_D, BLOCK_N], the softmax of every head of Q, of Wq and X [BLOCK_N, BLOCK_C]; 0 in rows that pad."""
    logits = tl.dot(query, tl.trans(x), input_precision=PRECISION) + bias[:, None]
    logits = tl.where(held[:, None], logits * inverse_temperature, float("-inf"))
    by_head = tl.reshape(logits, [BLOCK_D // HEAD, HEAD, BLOCK_N])
    largest = tl.max(by_head, 1)
    largest = tl.where(largest == float("-inf"), 0.0, largest)  # a head that pads
    by_head = tl.exp(by_head - largest[:, None, :])
    total = tl.sum(by_head, 1)
    by_head /= tl.where(total > 0, total, 1.0)[:, None, :]
    return tl.reshape(by_head, [BLOCK_D, BLOCK_N])


@triton.jit
def bias_of(bias_ptr, row, held):
    """In float32; 0 without one and in rows that pad."""
    bias = tl.where(held, 0.0, 0.0)
    if bias_ptr is not None:
        bias += tl.load(bias_ptr + row, mask=held, other=0.0).to(tl.float32)
    return bias


@triton.jit
def weigh_tokens(
    x_ptr, weight_ptr, partial_ptr, largest_ptr, total_ptr, tokens, split_tokens, x_b, x_n, x_c, inverse_temperature,
    BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, C: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, held = row_of(BLOCK_D, HEADS, WIDTH, HEAD)
    x_ptr += image * x_b
    key = rows_of(weight_ptr, row, held, C, BLOCK_C, DOT)
    largest = tl.full([BLOCK_D], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_D], tl.float32)
    weighted = tl.zeros([BLOCK_D, BLOCK_C], tl.float32)
    start = split * split_tokens
    for first in range(start, tl.minimum(start + split_tokens, tokens), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        x = tokens_of(x_ptr, n, tokens, x_n, x_c, C, BLOCK_C).to(DOT)
        keys = tl.dot(key, tl.trans(x), input_precision=PRECISION) * inverse_temperature
        keys = tl.where((n < tokens)[None, :], keys, float("-inf"))
        higher = tl.maximum(largest, tl.max(keys, 1))
        shrink = tl.exp(largest - higher)
        weights = tl.exp(keys - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        weighted = tl.dot(weights.to(DOT), x, weighted * shrink[:, None], input_precision=PRECISION)
        largest = higher
    at = (split.to(tl.int64) * tl.num_programs(0) + image) * (HEADS * WIDTH) + row
    c = tl.arange(0, BLOCK_C)
    tl.store(partial_ptr + at[:, None] * C + c[None, :], weighted, mask=held[:, None] & (c < C)[None, :])
    tl.store(largest_ptr + at, largest, mask=held)
    tl.store(total_ptr + at, total, mask=held)


@triton.jit
def mix_tokens(
    x_ptr, added_ptr, weight_ptr, bias_ptr, mixing_ptr, answer_ptr, tokens, blocks,
    x_b, x_n, x_c, added_b, added_n, added_c, answer_b, answer_n, answer_c, inverse_temperature,
    BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, C: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    row, held = row_of(BLOCK_D, HEADS, WIDTH, HEAD)
    n, c = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_C)
    x = tokens_of(x_ptr + image * x_b, n, tokens, x_n, x_c, C, BLOCK_C).to(DOT)
    query, bias = rows_of(weight_ptr, row, held, C, BLOCK_C, DOT), bias_of(bias_ptr, row, held)
    queries = query_softmax(query, x, bias, held, inverse_temperature, BLOCK_D, BLOCK_N, HEAD, PRECISION)
    mixing = rows_of(mixing_ptr + image * (HEADS * WIDTH) * C, row, held, C, BLOCK_C, DOT)
    answer = tl.dot(tl.trans(queries).to(DOT), mixing, input_precision=PRECISION)
    if added_ptr is not None:
        added = tokens_of(added_ptr + image * added_b, n, tokens, added_n, added_c, C, BLOCK_C)
        answer += added.to(tl.float32)
    tl.store(
        answer_ptr + image * answer_b + n[:, None] * answer_n + c[None, :] * answer_c,
        answer.to(answer_ptr.dtype.element_ty),
        mask=(n < tokens)[:, None] & (c < C)[None, :],
    )
