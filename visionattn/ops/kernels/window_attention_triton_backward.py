# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::window_attention_backward`; the equations are those of `window_attention`.

One program of each, for one window of a part of all images' windows after the other:

    through_window_queries   a head, a tile of a window's queries: dQ, and its part of dbias and dscale;
                             where one tile holds the window also what the other kernel does
    through_window_keys      a head, a tile of a window's keys: dK, dV, and its part of dpadding

The parts are summed by PyTorch, whose sums over a dimension are the same in every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.launching import Launch, padded
from visionattn.ops.kernels.window_attention_eager import empty_gradient, summed_by_offset
from visionattn.ops.kernels.window_attention_triton import (
    bias_tile,
    constants_of,
    grid_of,
    inputs_of,
    keys_and_values,
    places,
    put_rows,
    rows_of,
    scale_of,
    seen_side,
    unit,
)
from visionattn.ops.kernels.window_case import WindowCase


def backward(grad: Tensor, case: WindowCase, log_total: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `window_attention_eager.backward`."""
    qkv, table, padding, scale, _, window, *_ = case
    heads, channels = qkv.shape[-2:]
    positions = window[0] * window[1]
    grad_qkv = torch.empty_like(qkv)
    grad_table, grad_padding, grad_scale = (empty_gradient(t, qkv) for t in (table, padding, scale))
    inputs, constants = inputs_of(case), constants_of(case)
    block_k = padded(positions)
    launch = launch_for(block_k, constants["BLOCK_D"], qkv.dtype)
    tiles, parts = grid_of(inputs.windows, heads, window, launch, qkv.device)
    whole = launch.tokens == block_k

    def partial(wanted: Tensor | None, *shape: int) -> Tensor | None:
        return None if wanted is None else qkv.new_empty(parts.parts, *shape, dtype=torch.float32)

    bias_parts = partial(table, heads, positions, positions)
    scale_parts = partial(scale, heads, tiles)
    padding_parts = partial(inputs.padding, tiles, 2, heads, channels)
    delta = None if whole else torch.empty_like(log_total)
    gradients = grad, *grad.stride(), log_total, delta, grad_qkv, *grad_qkv.stride()
    with on_device_of(qkv):
        through_window_queries[heads * tiles, parts.parts](
            *inputs.arguments(), *gradients, bias_parts, scale_parts, padding_parts, tiles, parts.tokens,
            **constants, BLOCK_K=block_k, BLOCK_Q=launch.tokens, WHOLE=whole, **launch.options(),
        )  # fmt: skip
        if not whole:
            through_window_keys[heads * tiles, parts.parts](
                *inputs.arguments(), *gradients, padding_parts, tiles, parts.tokens,
                **constants, BLOCK_K=block_k, BLOCK_Q=launch.tokens, **launch.options(),
            )  # fmt: skip
        if bias_parts is not None:
            grad_table.copy_(summed_by_offset(bias_parts.sum(0), window))
        if scale_parts is not None:
            grad_scale.copy_(scale_parts.sum((0, 2)))
        if padding is not None:
            grad_padding.zero_() if padding_parts is None else grad_padding.copy_(padding_parts.sum((0, 1)))
    return grad_qkv, grad_table, grad_padding, grad_scale


def launch_for(block_k: int, block_d: int, dtype: torch.dtype) -> Launch:
    """By the padded sizes of a window and of a head; chosen for few spills when compiled for sm_90."""
    if dtype == torch.float32:
        return Launch(16, 4 if block_k <= 64 else 8, 1)
    if block_k <= 64:
        return Launch(block_k, 4 if block_d <= 32 else 8, 1)
    return Launch(16, 8, 1)


@triton.jit
def through_window_queries(
    qkv_ptr, table_ptr, padding_ptr, scale_ptr, mask_ptr,
    images, height, width, rows, columns, shift_y, shift_x, by_b, by_y, by_x, by_part, by_h, by_d, mask_b, mask_n,
    grad_ptr, grad_b, grad_y, grad_x, grad_h, grad_d, log_total_ptr, delta_ptr,
    out_ptr, out_b, out_y, out_x, out_part, out_h, out_d,
    bias_parts_ptr, scale_parts_ptr, padding_parts_ptr, tiles, windows_per_part,
    D: tl.constexpr, BLOCK_D: tl.constexpr, h: tl.constexpr, w: tl.constexpr, BLOCK_K: tl.constexpr,
    MASK_PADDING: tl.constexpr, SHIFT_FIRST: tl.constexpr, SHORTEST: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_Q: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    head, heads = tl.program_id(0) // tiles, tl.num_programs(0) // tiles
    d, i, j = tl.arange(0, BLOCK_D), tl.program_id(0) % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    scale = scale_of(scale_ptr, head, D=D)
    if table_ptr is not None:
        bias = bias_tile(table_ptr, head, i, j, h=h, w=w).to(DOT)
        grad_bias = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    if scale_ptr is not None:
        grad_scale = tl.zeros([BLOCK_Q], tl.float32)
    if WHOLE and padding_ptr is not None:
        grad_key_padding = tl.zeros([BLOCK_D], tl.float32)
        grad_value_padding = tl.zeros([BLOCK_D], tl.float32)
    qkv_ptr += head * by_h
    grad_ptr += head * grad_h
    out_ptr += head * out_h
    part = tl.program_id(1)
    start = part * windows_per_part
    for window in range(start, tl.minimum(start + windows_per_part, images * rows * columns)):
        b, row, column = (window // (rows * columns)).to(tl.int64), window // columns % rows, window % columns
        y, x, asking, side = places(i, row, column, height, width, rows, columns, shift_y, shift_x, h, w, SHIFT_FIRST)
        n, q_out = (b * heads + head) * height * width + y * width + x, y * out_y + x * out_x
        queries = rows_of(qkv_ptr + b * by_b, y * by_y + x * by_x, asking, d, by_d, D=D)
        grad = rows_of(grad_ptr + b * grad_b, y * grad_y + x * grad_x, asking, d, grad_d, D=D)
        log_total = tl.load(log_total_ptr + n, mask=asking, other=0.0)
        y, x, real, key_side = places(j, row, column, height, width, rows, columns, shift_y, shift_x, h, w, SHIFT_FIRST)
        offsets, k_out = y * by_y + x * by_x, y * out_y + x * out_x
        keys, values = keys_and_values(
            qkv_ptr + b * by_b + by_part, offsets, real, by_part, d, by_d, padding_ptr, head, heads, D=D
        )
        if scale_ptr is not None:
            queries, over_query = unit(queries, SHORTEST=SHORTEST)
            keys, over_key = unit(keys, SHORTEST=SHORTEST)
        seen = seen_side(mask_ptr + b * mask_b if mask_ptr is not None else None, key_side, real, j < h * w,
                         y * width + x, mask_n, MASK_PADDING=MASK_PADDING)  # fmt: skip
        logits = tl.dot(queries.to(DOT), tl.trans(keys.to(DOT)), input_precision=PRECISION) * scale
        if table_ptr is not None:
            logits += bias
        # Where nobody asks there is no log of a sum either.
        side = tl.where(asking, side, -2)
        weights = tl.where(side[:, None] == seen[None, :], tl.exp(logits - log_total[:, None]), 0.0)
        if WHOLE:
            grad_values = tl.dot(tl.trans(weights.to(DOT)), grad.to(DOT), input_precision=PRECISION)
            put_rows(out_ptr + b * out_b + 2 * out_part, k_out, real, d, out_d, grad_values, D=D)
            if padding_ptr is not None:
                # Beyond the window as well nobody sees keys: their gradients are 0.
                grad_value_padding += tl.sum(tl.where(real[:, None], 0.0, grad_values), 0)
        grad_logits = tl.dot(grad.to(DOT), tl.trans(values.to(DOT)), input_precision=PRECISION)
        delta = tl.sum(weights * grad_logits, 1)
        grad_logits = weights * (grad_logits - delta[:, None])
        if table_ptr is not None:
            grad_bias += grad_logits
        grad_queries = tl.dot(grad_logits.to(DOT), keys.to(DOT), input_precision=PRECISION)
        if scale_ptr is not None:
            along = tl.sum(grad_queries * queries, 1)
            grad_scale += along
            grad_queries = (grad_queries - along[:, None] * queries) * over_query[:, None]
        put_rows(out_ptr + b * out_b, q_out, asking, d, out_d, grad_queries * scale, D=D)
        if WHOLE:
            grad_keys = tl.dot(tl.trans(grad_logits.to(DOT)), queries.to(DOT), input_precision=PRECISION)
            if scale_ptr is not None:
                along = tl.sum(grad_keys * keys, 1)
                grad_keys = (grad_keys - along[:, None] * keys) * over_key[:, None]
            grad_keys *= scale
            put_rows(out_ptr + b * out_b + out_part, k_out, real, d, out_d, grad_keys, D=D)
            if padding_ptr is not None:
                grad_key_padding += tl.sum(tl.where(real[:, None], 0.0, grad_keys), 0)
        else:
            tl.store(delta_ptr + n, delta, mask=asking)
    if table_ptr is not None:
        row = (part * heads + head).to(tl.int64) * (h * w) + i
        inside = (i < h * w)[:, None] & (j < h * w)[None, :]
        tl.store(bias_parts_ptr + row[:, None] * (h * w) + j[None, :], grad_bias, mask=inside)
    if scale_ptr is not None:
        tl.store(scale_parts_ptr + (part * heads + head) * tiles + tl.program_id(0) % tiles, tl.sum(grad_scale, 0))
    if WHOLE and padding_ptr is not None:
        row = padding_parts_ptr + (part * 2 * heads + head) * D + d
        tl.store(row, grad_key_padding, mask=d < D)
        tl.store(row + heads * D, grad_value_padding, mask=d < D)


@triton.jit
def through_window_keys(
    qkv_ptr, table_ptr, padding_ptr, scale_ptr, mask_ptr,
    images, height, width, rows, columns, shift_y, shift_x, by_b, by_y, by_x, by_part, by_h, by_d, mask_b, mask_n,
    grad_ptr, grad_b, grad_y, grad_x, grad_h, grad_d, log_total_ptr, delta_ptr,
    out_ptr, out_b, out_y, out_x, out_part, out_h, out_d,
    padding_parts_ptr, tiles, windows_per_part,
    D: tl.constexpr, BLOCK_D: tl.constexpr, h: tl.constexpr, w: tl.constexpr, BLOCK_K: tl.constexpr,
    MASK_PADDING: tl.constexpr, SHIFT_FIRST: tl.constexpr, SHORTEST: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    head, heads, tile = tl.program_id(0) // tiles, tl.num_programs(0) // tiles, tl.program_id(0) % tiles
    d, i, j = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_K), tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    scale = scale_of(scale_ptr, head, D=D)
    if table_ptr is not None:
        bias = bias_tile(table_ptr, head, i, j, h=h, w=w).to(DOT)
    if padding_ptr is not None:
        grad_key_padding = tl.zeros([BLOCK_D], tl.float32)
        grad_value_padding = tl.zeros([BLOCK_D], tl.float32)
    qkv_ptr += head * by_h
    grad_ptr += head * grad_h
    out_ptr += head * out_h
    part = tl.program_id(1)
    start = part * windows_per_part
    for window in range(start, tl.minimum(start + windows_per_part, images * rows * columns)):
        b, row, column = (window // (rows * columns)).to(tl.int64), window // columns % rows, window % columns
        y, x, real, key_side = places(j, row, column, height, width, rows, columns, shift_y, shift_x, h, w, SHIFT_FIRST)
        offsets, k_out = y * by_y + x * by_x, y * out_y + x * out_x
        keys, values = keys_and_values(
            qkv_ptr + b * by_b + by_part, offsets, real, by_part, d, by_d, padding_ptr, head, heads, D=D
        )
        seen = seen_side(mask_ptr + b * mask_b if mask_ptr is not None else None, key_side, real, j < h * w,
                         y * width + x, mask_n, MASK_PADDING=MASK_PADDING)  # fmt: skip
        y, x, asking, side = places(i, row, column, height, width, rows, columns, shift_y, shift_x, h, w, SHIFT_FIRST)
        n = (b * heads + head) * height * width + y * width + x
        queries = rows_of(qkv_ptr + b * by_b, y * by_y + x * by_x, asking, d, by_d, D=D)
        grad = rows_of(grad_ptr + b * grad_b, y * grad_y + x * grad_x, asking, d, grad_d, D=D)
        log_total = tl.load(log_total_ptr + n, mask=asking, other=0.0)
        delta = tl.load(delta_ptr + n, mask=asking, other=0.0)
        if scale_ptr is not None:
            queries, _ = unit(queries, SHORTEST=SHORTEST)
            keys, over_key = unit(keys, SHORTEST=SHORTEST)
        logits = tl.dot(queries.to(DOT), tl.trans(keys.to(DOT)), input_precision=PRECISION) * scale
        if table_ptr is not None:
            logits += bias
        side = tl.where(asking, side, -2)
        weights = tl.where(side[:, None] == seen[None, :], tl.exp(logits - log_total[:, None]), 0.0)
        grad_values = tl.dot(tl.trans(weights.to(DOT)), grad.to(DOT), input_precision=PRECISION)
        put_rows(out_ptr + b * out_b + 2 * out_part, k_out, real, d, out_d, grad_values, D=D)
        grad_logits = tl.dot(grad.to(DOT), tl.trans(values.to(DOT)), input_precision=PRECISION)
        grad_logits = weights * (grad_logits - delta[:, None])
        grad_keys = tl.dot(tl.trans(grad_logits.to(DOT)), queries.to(DOT), input_precision=PRECISION)
        if scale_ptr is not None:
            along = tl.sum(grad_keys * keys, 1)
            grad_keys = (grad_keys - along[:, None] * keys) * over_key[:, None]
        grad_keys *= scale
        put_rows(out_ptr + b * out_b + out_part, k_out, real, d, out_d, grad_keys, D=D)
        if padding_ptr is not None:
            grad_key_padding += tl.sum(tl.where(real[:, None], 0.0, grad_keys), 0)
            grad_value_padding += tl.sum(tl.where(real[:, None], 0.0, grad_values), 0)
    if padding_ptr is not None:
        row = padding_parts_ptr + ((part * tiles + tile) * 2 * heads + head) * D + d
        tl.store(row, grad_key_padding, mask=d < D)
        tl.store(row + heads * D, grad_value_padding, mask=d < D)
