# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernel of `visionattn::window_attention`, forward; the equations are those of `window_attention`.

One program of `attend_windows`: a head, a tile of a window's queries, and one window of a part of all images' windows
after the other, whose keys come in tiles. Where a position of a window lies on the map, whether a token is there and on
which side of a shift's seam are computed; where one tile holds a window's keys, the bias is read once for all windows.

Letters: T positions of a window, of h x w; D channels per head; p a position, y and x a row and column of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.launching import Launch, Splits, as_bytes, number_format, padded, splits_for
from visionattn.ops.kernels.window_attention_eager import SHORTEST
from visionattn.ops.kernels.window_case import WindowCase

RESIDENT = 8  # programs per multiprocessor
KEYS = 64  # at once


class Windows(NamedTuple):
    """Where the windows of all images lie, as the kernels take it; the shift is below the window."""

    images: int
    height: int
    width: int
    rows: int
    columns: int
    shift_y: int
    shift_x: int


class Inputs(NamedTuple):
    """What forward and backward read alike, in the kernels' order of arguments."""

    qkv: Tensor
    table: Tensor | None  # [heads, entries]
    padding: Tensor | None
    scale: Tensor | None
    mask: Tensor | None
    windows: Windows
    strides: tuple[int, ...]

    def arguments(self) -> tuple[Any, ...]:
        return *self[:5], *self.windows, *self.strides


def forward(case: WindowCase) -> tuple[Tensor, Tensor]:
    """As `window_attention_eager.forward`."""
    qkv, window = case.qkv, case.window
    batch, height, width, _, heads, channels = qkv.shape
    answer = qkv.new_empty(batch, height, width, heads, channels)
    log_total = qkv.new_empty(batch, heads, height * width, dtype=torch.float32)
    inputs, constants = inputs_of(case), constants_of(case)
    block_k = padded(window[0] * window[1])
    launch = launch_for(block_k, constants["BLOCK_D"], qkv.dtype)
    tiles, parts = grid_of(inputs.windows, heads, window, launch, qkv.device)
    with on_device_of(qkv):
        attend_windows[heads * tiles, parts.parts](
            *inputs.arguments(), answer, log_total, tiles, parts.tokens,
            **constants, BLOCK_Q=launch.tokens, KEYS=min(KEYS, block_k), **launch.options(),
        )  # fmt: skip
    return answer, log_total


def inputs_of(case: WindowCase) -> Inputs:
    """The op's arguments as the kernels take them."""
    qkv, table, padding, scale, mask, window, shift, mask_padding, _ = case
    batch, height, width = qkv.shape[:3]
    windows = Windows(
        batch, height, width, triton.cdiv(height, window[0]), triton.cdiv(width, window[1]), shift[0], shift[1]
    )
    if mask_padding or not (height % window[0] or width % window[1]):
        padding = None
    mask_bytes, *mask_strides = as_bytes(mask)
    return Inputs(
        qkv,
        None if table is None else table.float().t().contiguous(),
        None if padding is None else padding.contiguous(),
        None if scale is None else scale.float().contiguous(),
        mask_bytes,
        windows,
        (*qkv.stride(), *mask_strides),
    )


def constants_of(case: WindowCase) -> dict[str, Any]:
    """The constants that all kernels share."""
    channels = case.qkv.shape[-1]
    return {
        "D": channels,
        "BLOCK_D": padded(channels),
        "h": case.window[0],
        "w": case.window[1],
        "MASK_PADDING": case.mask_padding,
        "SHIFT_FIRST": case.shift_before_padding,
        "SHORTEST": SHORTEST,
        **number_format(case.qkv.dtype),
    }


def grid_of(
    windows: Windows, heads: int, window: Sequence[int], launch: Launch, device: torch.device
) -> tuple[int, Splits]:
    """Tiles of a window's positions, and the parts of all windows."""
    tiles = triton.cdiv(window[0] * window[1], launch.tokens)
    count = windows.images * windows.rows * windows.columns
    return tiles, splits_for(count, heads * tiles, 1, device, resident=RESIDENT)


def launch_for(block_k: int, block_d: int, dtype: torch.dtype) -> Launch:
    """By the padded sizes of a window and of a head; chosen for few spills when compiled for sm_90."""
    if dtype == torch.float32 and (block_k > KEYS or block_d > 32):
        return Launch(16, 4, 2)
    return Launch(block_k if block_k <= KEYS else 32, 4, 2)


@triton.jit
def attend_windows(
    qkv_ptr, table_ptr, padding_ptr, scale_ptr, mask_ptr,
    images, height, width, rows, columns, shift_y, shift_x, by_b, by_y, by_x, by_part, by_h, by_d, mask_b, mask_n,
    answer_ptr, log_total_ptr, tiles, windows_per_part,
    D: tl.constexpr, BLOCK_D: tl.constexpr, h: tl.constexpr, w: tl.constexpr, MASK_PADDING: tl.constexpr,
    SHIFT_FIRST: tl.constexpr, SHORTEST: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    head, heads = tl.program_id(0) // tiles, tl.num_programs(0) // tiles
    d, i = tl.arange(0, BLOCK_D), tl.program_id(0) % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    scale = scale_of(scale_ptr, head, D=D)
    once: tl.constexpr = h * w <= KEYS
    if table_ptr is not None and once:
        bias = bias_tile(table_ptr, head, i, tl.arange(0, KEYS), h=h, w=w).to(DOT)  # as plain PyTorch holds it
    qkv_ptr += head * by_h
    start = tl.program_id(1) * windows_per_part
    for window in range(start, tl.minimum(start + windows_per_part, images * rows * columns)):
        b, row, column = (window // (rows * columns)).to(tl.int64), window // columns % rows, window % columns
        y, x, asking, side = places(i, row, column, height, width, rows, columns, shift_y, shift_x, h, w, SHIFT_FIRST)
        n = y * width + x
        queries = rows_of(qkv_ptr + b * by_b, y * by_y + x * by_x, asking, d, by_d, D=D)
        if scale_ptr is not None:
            queries = unit(queries, SHORTEST=SHORTEST)[0]
        answer = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
        largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        for first in range(0, h * w, KEYS):
            j = first + tl.arange(0, KEYS)
            key_y, key_x, real, key_side = places(
                j, row, column, height, width, rows, columns, shift_y, shift_x, h, w, SHIFT_FIRST
            )
            seen = seen_side(mask_ptr + b * mask_b if mask_ptr is not None else None, key_side, real, j < h * w,
                             key_y * width + key_x, mask_n, MASK_PADDING=MASK_PADDING)  # fmt: skip
            offsets = key_y * by_y + key_x * by_x
            keys, values = keys_and_values(
                qkv_ptr + b * by_b + by_part, offsets, real, by_part, d, by_d, padding_ptr, head, heads, D=D
            )
            if scale_ptr is not None:
                keys = unit(keys, SHORTEST=SHORTEST)[0]
            logits = tl.dot(queries.to(DOT), tl.trans(keys.to(DOT)), input_precision=PRECISION) * scale
            if table_ptr is not None:
                logits += bias if once else bias_tile(table_ptr, head, i, j, h=h, w=w)
            logits = tl.where(side[:, None] == seen[None, :], logits, float("-inf"))
            higher = tl.maximum(largest, tl.max(logits, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)  # no key seen yet
            shrink = tl.exp(largest - base)
            weights = tl.exp(logits - base[:, None])
            total = total * shrink + tl.sum(weights, 1)
            answer = tl.dot(weights.to(DOT), values.to(DOT), answer * shrink[:, None], input_precision=PRECISION)
            largest = higher
        largest = tl.where(total == 0, 0.0, largest)  # a query that sees no key
        total = tl.where(total == 0, 1.0, total)
        answer /= total[:, None]
        put_rows(answer_ptr + b * height * width * heads * D + head * D, n * (heads * D), asking, d, 1, answer, D=D)
        tl.store(log_total_ptr + (b * heads + head) * height * width + n, largest + tl.log(total), mask=asking)


@triton.jit
def places(
    p, row, column, height, width, rows, columns, shift_y, shift_x,
    h: tl.constexpr, w: tl.constexpr, SHIFT_FIRST: tl.constexpr,
):  # fmt: skip
    """y, x, whether a token is there, and its side of the seams: positions p of the window in this row and column."""
    y, beyond_y = along_axis(row * h + p // w, height, rows * h, shift_y, SHIFT_FIRST)
    x, beyond_x = along_axis(column * w + p % w, width, columns * w, shift_x, SHIFT_FIRST)
    return y, x, (p < h * w) & (y < height) & (x < width), 2 * beyond_y + beyond_x


@triton.jit
def along_axis(p, extent, covered, shift, SHIFT_FIRST: tl.constexpr):
    """The row (or column) at a position of an axis that is covered with windows, and 1 beyond the seam."""
    rolled = extent if SHIFT_FIRST else covered
    return tl.where(p < rolled, (p + shift) % rolled, p), (p >= covered - shift).to(tl.int32)


@triton.jit
def rows_of(ptr, offsets, real, d, by_d, D: tl.constexpr):
    """[T, BLOCK_D], 0 where there is no token."""
    return tl.load(ptr + offsets[:, None] + d[None, :] * by_d, mask=real[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def put_rows(ptr, offsets, real, d, by_d, t, D: tl.constexpr):
    """The opposite of `rows_of`."""
    place = ptr + offsets[:, None] + d[None, :] * by_d
    tl.store(place, t.to(ptr.dtype.element_ty), mask=real[:, None] & (d < D)[None, :])


@triton.jit
def keys_and_values(k_ptr, offsets, real, to_v, d, by_d, padding_ptr, head, heads, D: tl.constexpr):
    """Those of a window, [T, BLOCK_D]; where there is no token a row of the padding [2, heads, D], if there is one."""
    keys = rows_of(k_ptr, offsets, real, d, by_d, D=D)
    values = rows_of(k_ptr + to_v, offsets, real, d, by_d, D=D)
    if padding_ptr is not None:
        row = tl.load(padding_ptr + head * D + d, mask=d < D, other=0.0).to(keys.dtype)
        keys = tl.where(real[:, None], keys, row[None, :])
        row = tl.load(padding_ptr + (heads + head) * D + d, mask=d < D, other=0.0).to(values.dtype)
        values = tl.where(real[:, None], values, row[None, :])
    return keys, values


@triton.jit
def seen_side(mask_ptr, side, real, held, n, mask_n, MASK_PADDING: tl.constexpr):
    """The side of the seams of each key, -1 for those that nobody may see."""
    seen = real
    if mask_ptr is not None:
        seen &= tl.load(mask_ptr + n * mask_n, mask=real, other=0) != 0
    if not MASK_PADDING:
        seen |= held & ~real
    return tl.where(seen, side, -1)


@triton.jit
def unit(t, SHORTEST: tl.constexpr):
    """The rows of t [T, BLOCK_D] over their lengths, in float32, and what each was multiplied by."""
    t = t.to(tl.float32)
    inverse = 1 / tl.maximum(tl.sqrt(tl.sum(t * t, 1)), SHORTEST)
    return t * inverse[:, None], inverse


@triton.jit
def scale_of(scale_ptr, head, D: tl.constexpr):
    """What the products of a head are multiplied by."""
    if scale_ptr is None:
        return D**-0.5
    else:
        return tl.load(scale_ptr + head)


@triton.jit
def bias_tile(table_ptr, head, i, j, h: tl.constexpr, w: tl.constexpr):
    """The bias of queries i and keys j: the place of an offset in the table is a difference of two numbers."""
    entry = (i // w * (2 * w - 1) + i % w)[:, None] - (j // w * (2 * w - 1) + j % w)[None, :]
    entry += (h - 1) * (2 * w - 1) + w - 1
    inside = (i < h * w)[:, None] & (j < h * w)[None, :]
    return tl.load(table_ptr + head * ((2 * h - 1) * (2 * w - 1)) + entry, mask=inside, other=0.0)
