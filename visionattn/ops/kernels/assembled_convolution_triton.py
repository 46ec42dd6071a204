# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::assembled_convolution`: sums of shifted rows, each written once, each gradient read twice.

One program of each:

    assemble    a tile of a row, some outputs, some planes: what L and R add, L's far part held
    take_apart  a tile of a row, some outputs: the sums over planes of the gradients of L's far part (for one x) and of
                R's (for one x - d), and the lines that are those of L's near parts and of T

The lag of x is x - d + 2, what R adds lies there, and from 4 on all taps see L.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.memory_order import empty_volume

COLUMNS_AT_ONCE = 64
OUTPUTS_AT_ONCE = 32
PLANES_AT_ONCE = 16
"""Of a program of four warps; half as many columns in the backward, which holds two sums."""

FAR = tl.constexpr(4)


def forward(of_left: Tensor, of_right: Tensor, beyond: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """As `assembled_convolution_op`."""
    batch, _, outputs, height, width = of_left.shape
    disparities = beyond.shape[3]
    volume = empty_volume(of_left, batch, outputs, disparities, height, width)
    tiles = triton.cdiv(width, COLUMNS_AT_ONCE)
    grid = batch * height * tiles, triton.cdiv(outputs, OUTPUTS_AT_ONCE), triton.cdiv(disparities, PLANES_AT_ONCE)
    with on_device_of(of_left):
        assemble[grid](
            of_left, of_right, beyond, first, last, volume, disparities, height, width, tiles,
            *of_left.stride(), *of_right.stride(), *beyond.stride(), *first.stride(), *last.stride(),
            OUTPUTS=outputs, BLOCK_X=COLUMNS_AT_ONCE, BLOCK_O=OUTPUTS_AT_ONCE, BLOCK_D=PLANES_AT_ONCE, num_warps=4,
        )  # fmt: skip
    return volume


def backward(grad: Tensor, of_left: Tensor, of_right: Tensor, beyond: Tensor) -> None:
    """Writes the gradients of these three parts."""
    batch, outputs, disparities, height, width = grad.shape
    columns = COLUMNS_AT_ONCE // 2
    tiles = triton.cdiv(max(width + 2, disparities), columns)
    with on_device_of(grad):
        take_apart[batch * height * tiles, triton.cdiv(outputs, OUTPUTS_AT_ONCE)](
            grad, of_left, of_right, beyond, disparities, height, width, tiles,
            *grad.stride(), *of_left.stride(), *of_right.stride(), *beyond.stride(),
            OUTPUTS=outputs, BLOCK_X=columns, BLOCK_O=OUTPUTS_AT_ONCE, num_warps=4,
        )  # fmt: skip


@triton.jit
def assemble(
    left_ptr, right_ptr, beyond_ptr, first_ptr, last_ptr, volume_ptr, disparities, height, width, tiles,
    left_b, left_e, left_o, left_y, left_x, right_b, right_o, right_y, right_x,
    beyond_b, beyond_o, beyond_y, beyond_d, first_b, first_o, first_y, first_x, last_b, last_o, last_y, last_x,
    OUTPUTS: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b, y = (row // height).to(tl.int64), row % height
    x, o = tile * BLOCK_X + tl.arange(0, BLOCK_X), tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    inside = (x < width)[:, None] & (o < OUTPUTS)[None, :]
    left_ptr += b * left_b + y * left_y
    right_ptr += b * right_b + y * right_y
    beyond_ptr += b * beyond_b + y * beyond_y
    volume_ptr += b * disparities * height * width * OUTPUTS
    far = tile_at(left_ptr + FAR * left_e, x, o, inside, left_x, left_o)
    start = tl.program_id(2) * BLOCK_D
    for d in range(start, tl.minimum(start + BLOCK_D, disparities)):
        if d == 0:
            answer = tile_at(first_ptr + b * first_b + y * first_y, x, o, inside, first_x, first_o)
        elif d == disparities - 1:
            answer = tile_at(last_ptr + b * last_b + y * last_y, x, o, inside, last_x, last_o)
        else:
            lag = x - d + 2
            seen, near = lag >= 0, (lag >= 0) & (lag < FAR)
            # x * left_x + lag * left_e, since the near part that a column reads is its lag.
            of_left = tile_at(left_ptr + (2 - d) * left_e, x, o, inside & near[:, None], left_x + left_e, left_o)
            of_left = tl.where((lag >= FAR)[:, None], far, of_left)
            of_right = tile_at(right_ptr, lag, o, inside & seen[:, None], right_x, right_o)
            is_last = inside & (x == width - 1)[:, None]
            past = tile_at(beyond_ptr + d * beyond_d, x, o, is_last, 0, beyond_o)
            answer = of_left + of_right - past
        at = ((d * height + y) * width + x)[:, None] * OUTPUTS + o[None, :]
        tl.store(volume_ptr + at, answer.to(volume_ptr.dtype.element_ty), mask=inside)


@triton.jit
def take_apart(
    grad_ptr, left_ptr, right_ptr, beyond_ptr, disparities, height, width, tiles,
    grad_b, grad_o, grad_d, grad_y, grad_x, left_b, left_e, left_o, left_y, left_x,
    right_b, right_o, right_y, right_x, beyond_b, beyond_o, beyond_y, beyond_d,
    OUTPUTS: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b, y = (row // height).to(tl.int64), row % height
    n, o = tile * BLOCK_X + tl.arange(0, BLOCK_X), tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    real = (o < OUTPUTS)[None, :]
    grad_ptr += b * grad_b + y * grad_y
    left_ptr += b * left_b + y * left_y
    right_ptr += b * right_b + y * right_y
    beyond_ptr += b * beyond_b + y * beyond_y

    # n is x for the far part of L, and the lag for what R adds: both read plane d in the same step.
    far = tl.zeros([BLOCK_X, BLOCK_O], tl.float32)
    of_right = tl.zeros([BLOCK_X, BLOCK_O], tl.float32)
    for d in range(1, disparities - 1):
        seen = (n < width) & (n - d + 2 >= FAR)
        far += tile_at(grad_ptr + d * grad_d, n, o, real & seen[:, None], grad_x, grad_o)
        x = n + d - 2
        seen = (x >= 0) & (x < width) & (n < width + 2)
        of_right += tile_at(grad_ptr + d * grad_d, x, o, real & seen[:, None], grad_x, grad_o)
    put(left_ptr + FAR * left_e, far, n, o, real & (n < width)[:, None], left_x, left_o)
    put(right_ptr, of_right, n, o, real & (n < width + 2)[:, None], right_x, right_o)

    for near in tl.static_range(0, 4):
        d = n + 2 - near
        seen = (n < width) & (d >= 1) & (d < disparities - 1)
        slope = tile_at(grad_ptr + (2 - near) * grad_d, n, o, real & seen[:, None], grad_x + grad_d, grad_o)
        put(left_ptr + near * left_e, slope, n, o, real & (n < width)[:, None], left_x, left_o)

    seen = (n >= 1) & (n < disparities - 1)  # here n is d
    slope = tile_at(grad_ptr + (width - 1) * grad_x, n, o, real & seen[:, None], grad_d, grad_o)
    put(beyond_ptr, -slope, n, o, real & (n < disparities)[:, None], beyond_d, beyond_o)


@triton.jit
def tile_at(row_ptr, x, o, inside, stride_x, stride_o):
    """Columns x and outputs o of a row, [X, O]; 0 where they are not inside."""
    return tl.load(row_ptr + x[:, None] * stride_x + o[None, :] * stride_o, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def put(row_ptr, values, x, o, inside, stride_x, stride_o):
    """Stores what `tile_at` reads."""
    tl.store(row_ptr + x[:, None] * stride_x + o[None, :] * stride_o, values.to(row_ptr.dtype.element_ty), mask=inside)
