# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::folded_attention_backward`; the equations are those of `folded_attention`.

One program of each has an image and a part of the tokens, with all channels, and makes its part of sums over the
tokens, which are added always in the same order:

    through_mixing   dM, dWq and the gradient of Wq's bias
    through_tokens   dX, and dWk

P is about 1 / N and dW about N times a token's part of it: in float16 one would vanish and the other overflow. So dW
and delta are divided by N, and P multiplied; N rounded to a power of two, of at most 2**15.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.folded_attention_eager import as_the_weights, gradients_of_mixing, scaled_mixing
from visionattn.ops.kernels.folded_attention_triton import Sizes, bias_of, query_softmax, row_of, rows_of, tokens_of
from visionattn.ops.kernels.launching import Launch, number_format, splits_for
from visionattn.ops.kernels.memory_order import empty_tokens


def backward(
    options: Options,
    grad: Tensor,
    x: Tensor,
    scale: Tensor | None,
    weights: Weights,
    weighted: Tensor,
    log_total: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `folded_attention_eager.backward`."""
    batch, tokens, channels = x.shape
    dim, inverse_temperature = options.key_dim, 1 / options.temperature
    sizes = Sizes.of(options, channels)
    dtype = weights.qkv.dtype
    launch = launch_for(sizes, dtype)
    constants = {**sizes._asdict(), **number_format(dtype), "BLOCK_N": launch.tokens, **launch.options()}
    splits = splits_for(tokens, batch, launch.tokens, x.device)
    grid = batch, splits.parts
    qkv = weights.qkv.contiguous()
    mixing = scaled_mixing(options, weighted, scale, weights)
    of_mixing, of_query = (torch.empty(splits.parts, *mixing.shape, device=x.device) for _ in range(2))
    of_bias = torch.empty(splits.parts, batch, dim, device=x.device)
    with on_device_of(x):
        through_mixing[grid](
            x, grad, qkv, weights.qkv_bias, mixing, of_mixing, of_query, of_bias, tokens, splits.tokens,
            *x.stride(), *grad.stride(), inverse_temperature, **constants,
        )  # fmt: skip
    small = gradients_of_mixing(options, of_mixing.sum(0), scale, weights, weighted)
    share = float(min(1 << (tokens - 1).bit_length(), 2**15))
    of_weighted = (small.weighted.mT / share).contiguous()
    delta = (of_weighted * weighted).sum(-1)
    of_x, of_key = empty_tokens(x, x.dtype), torch.empty_like(of_query)
    with on_device_of(x):
        through_tokens[grid](
            x, grad, qkv, qkv[dim:], weights.qkv_bias, mixing, of_weighted, log_total, delta, of_x, of_key,
            tokens, splits.tokens, share, *x.stride(), *grad.stride(), *of_x.stride(), inverse_temperature,
            ADDS_X=options.adds_x, **constants,
        )  # fmt: skip
    rows = of_query.sum((0, 1)), of_key.sum((0, 1))
    return as_the_weights(x, scale, weights, small, of_x, rows, of_bias.sum((0, 1)))


def launch_for(sizes: Sizes, dtype: torch.dtype) -> Launch:
    """By the rows of a tile; chosen so that nothing spills when compiled for sm_90."""
    if dtype == torch.float32:
        return Launch(16, 4 if sizes.BLOCK_C * sizes.BLOCK_D <= 1024 else 8, 1)
    return Launch(16 if sizes.BLOCK_C > 64 else 32, 4 if sizes.BLOCK_D <= 32 else 8, 1)


@triton.jit
def query_gradients(
    queries, mixing, grad, inverse_temperature,
    BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, HEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ [BLOCK_D, BLOCK_N] of R and of the answer's gradient [BLOCK_N, BLOCK_C]."""
    of_queries = tl.dot(mixing, tl.trans(grad), input_precision=PRECISION)
    by_head = tl.reshape(of_queries, [BLOCK_D // HEAD, HEAD, BLOCK_N])
    means = tl.sum(tl.reshape(queries * of_queries, [BLOCK_D // HEAD, HEAD, BLOCK_N]), 1)
    of_queries = tl.reshape(by_head - means[:, None, :], [BLOCK_D, BLOCK_N])
    return queries * of_queries * inverse_temperature


@triton.jit
def through_mixing(
    x_ptr, grad_ptr, query_ptr, bias_ptr, mixing_ptr, of_mixing_ptr, of_query_ptr, of_bias_ptr,
    tokens, split_tokens, x_b, x_n, x_c, grad_b, grad_n, grad_c, inverse_temperature,
    BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, C: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, held = row_of(BLOCK_D, HEADS, WIDTH, HEAD)
    x_ptr += image * x_b
    grad_ptr += image * grad_b
    query, bias = rows_of(query_ptr, row, held, C, BLOCK_C, DOT), bias_of(bias_ptr, row, held)
    mixing = rows_of(mixing_ptr + image * (HEADS * WIDTH) * C, row, held, C, BLOCK_C, DOT)
    of_mixing = tl.zeros([BLOCK_D, BLOCK_C], tl.float32)
    of_query = tl.zeros([BLOCK_D, BLOCK_C], tl.float32)
    of_bias = tl.zeros([BLOCK_D], tl.float32)
    start = split * split_tokens
    for first in range(start, tl.minimum(start + split_tokens, tokens), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        # Beyond the last token X and the gradient are 0, and so is all that is added.
        x = tokens_of(x_ptr, n, tokens, x_n, x_c, C, BLOCK_C).to(DOT)
        grad = tokens_of(grad_ptr, n, tokens, grad_n, grad_c, C, BLOCK_C).to(DOT)
        queries = query_softmax(query, x, bias, held, inverse_temperature, BLOCK_D, BLOCK_N, HEAD, PRECISION)
        of_mixing = tl.dot(queries.to(DOT), grad, of_mixing, input_precision=PRECISION)
        of_queries = query_gradients(queries, mixing, grad, inverse_temperature, BLOCK_D, BLOCK_N, HEAD, PRECISION)
        of_query = tl.dot(of_queries.to(DOT), x, of_query, input_precision=PRECISION)
        of_bias += tl.sum(of_queries, 1)
    at = (split.to(tl.int64) * tl.num_programs(0) + image) * (HEADS * WIDTH) + row
    c = tl.arange(0, BLOCK_C)
    inside = held[:, None] & (c < C)[None, :]
    tl.store(of_mixing_ptr + at[:, None] * C + c[None, :], of_mixing, mask=inside)
    tl.store(of_query_ptr + at[:, None] * C + c[None, :], of_query, mask=inside)
    tl.store(of_bias_ptr + at, of_bias, mask=held)


@triton.jit
def through_tokens(
    x_ptr, grad_ptr, query_ptr, key_ptr, bias_ptr, mixing_ptr, of_weighted_ptr, log_total_ptr, delta_ptr,
    of_x_ptr, of_key_ptr, tokens, split_tokens, share,
    x_b, x_n, x_c, grad_b, grad_n, grad_c, of_x_b, of_x_n, of_x_c, inverse_temperature,
    BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr, C: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr, BLOCK_N: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr, ADDS_X: tl.constexpr,
):  # fmt: skip
    image, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, held = row_of(BLOCK_D, HEADS, WIDTH, HEAD)
    dim, c = HEADS * WIDTH, tl.arange(0, BLOCK_C)
    x_ptr += image * x_b
    grad_ptr += image * grad_b
    of_x_ptr += image * of_x_b
    query, bias = rows_of(query_ptr, row, held, C, BLOCK_C, DOT), bias_of(bias_ptr, row, held)
    key = rows_of(key_ptr, row, held, C, BLOCK_C, DOT)
    mixing = rows_of(mixing_ptr + image * dim * C, row, held, C, BLOCK_C, DOT)
    of_weighted = rows_of(of_weighted_ptr + image * dim * C, row, held, C, BLOCK_C, DOT)
    log_total = tl.load(log_total_ptr + image * dim + row, mask=held, other=0.0)
    delta = tl.load(delta_ptr + image * dim + row, mask=held, other=0.0)
    of_key = tl.zeros([BLOCK_D, BLOCK_C], tl.float32)
    start = split * split_tokens
    for first in range(start, tl.minimum(start + split_tokens, tokens), BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        x = tokens_of(x_ptr, n, tokens, x_n, x_c, C, BLOCK_C).to(DOT)
        grad = tokens_of(grad_ptr, n, tokens, grad_n, grad_c, C, BLOCK_C)
        queries = query_softmax(query, x, bias, held, inverse_temperature, BLOCK_D, BLOCK_N, HEAD, PRECISION)
        of_queries = query_gradients(
            queries, mixing, grad.to(DOT), inverse_temperature, BLOCK_D, BLOCK_N, HEAD, PRECISION
        )
        of_x = tl.dot(tl.trans(of_queries).to(DOT), query, input_precision=PRECISION)
        keys = tl.dot(key, tl.trans(x), input_precision=PRECISION)
        # Chosen after the exponential: what pads must not overflow into NaN.
        shares = tl.exp(keys * inverse_temperature - log_total[:, None]) * share
        shares = tl.where(held[:, None] & (n < tokens)[None, :], shares, 0.0)
        of_x = tl.dot(tl.trans(shares).to(DOT), of_weighted, of_x, input_precision=PRECISION)
        of_keys = tl.dot(of_weighted, tl.trans(x), input_precision=PRECISION)
        of_keys = shares * (of_keys - delta[:, None]) * inverse_temperature
        of_x = tl.dot(tl.trans(of_keys).to(DOT), key, of_x, input_precision=PRECISION)
        of_key = tl.dot(of_keys.to(DOT), x, of_key, input_precision=PRECISION)
        if ADDS_X:
            of_x += grad.to(tl.float32)
        tl.store(
            of_x_ptr + n[:, None] * of_x_n + c[None, :] * of_x_c,
            of_x.to(of_x_ptr.dtype.element_ty),
            mask=(n < tokens)[:, None] & (c < C)[None, :],
        )
    at = (split.to(tl.int64) * tl.num_programs(0) + image) * dim + row
    tl.store(of_key_ptr + at[:, None] * C + c[None, :], of_key, mask=held[:, None] & (c < C)[None, :])
