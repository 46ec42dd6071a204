# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::upsampled_soft_argmax`: costs are interpolated where they are used, and never stored.

One program of each:

    expect        pixels of a row of the answer: planes one after the other, largest cost, sum and weighted sum online
    expect_back   some coarse cells of a row, and all pixels that read them: what their planes' gradients add up to

A cost lies on a line between two coarse planes, which are interpolated in their plane once and kept until the next one
is met. A pixel is seen by the four cells around it, and its exponentials made again by each of them: what a cell gets
is summed in one program, always in the same order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of

PIXELS = 128
"""Of a program of four warps."""
SEEN = 512
"""Pixels that a program of the backward, of four warps, goes through at once."""


class Axis(NamedTuple):
    """Linear interpolation along one axis, as `torch.nn.functional.interpolate` does it."""

    step: float  # of a fine point, in coarse ones
    inverse: float
    taps: int  # fine points that read one coarse point, at most

    @classmethod
    def of(cls, coarse: int, fine: int, align_corners: bool) -> Axis:
        step = (coarse - 1) / max(fine - 1, 1) if align_corners else coarse / fine
        if coarse == 1:
            return cls(step, 0.0, fine)
        # Without a fraction the open interval of two coarse points holds just as many; a rounded step may add one.
        exact = not align_corners and math.frexp(step)[0] == 0.5
        return cls(step, 1 / step, round(2 / step) if exact else math.ceil(2 / step) + 1)


def forward(logits: Tensor, planes: int, height: int, width: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """As `upsampled_soft_argmax_op`."""
    batch, *extents = logits.shape
    depth, rows, columns = axes(extents, (planes, height, width), align_corners)
    answer = logits.new_empty(batch, height, width, dtype=torch.float32)
    log_total = torch.empty_like(answer)
    tiles = triton.cdiv(width, PIXELS)
    with on_device_of(logits):
        expect[(batch * height * tiles,)](
            logits, answer, log_total, planes, height, width, tiles, *extents, *logits.stride(),
            depth.step, rows.step, columns.step, ALIGN=align_corners, BLOCK=PIXELS, num_warps=4,
        )  # fmt: skip
    return answer, log_total


def backward(
    grad: Tensor, logits: Tensor, answer: Tensor, log_total: Tensor, planes: int, align_corners: bool
) -> Tensor:
    """As `upsampled_soft_argmax_backward_op`."""
    batch, *extents = logits.shape
    height, width = answer.shape[1:]
    depth, rows, columns = axes(extents, (planes, height, width), align_corners)
    to_logits = torch.empty_like(logits)
    seen = triton.next_power_of_2(rows.taps * columns.taps)
    cells = max(1, min(SEEN // seen, triton.next_power_of_2(extents[2])))
    tiles = triton.cdiv(extents[2], cells)
    with on_device_of(logits):
        expect_back[(batch * extents[1] * tiles,)](
            grad, logits, answer, log_total, to_logits, planes, height, width, tiles, *extents,
            *grad.stride(), *logits.stride(), *to_logits.stride(),
            depth.step, rows.step, columns.step, rows.inverse, columns.inverse,
            ALIGN=align_corners, ROWS=rows.taps, COLUMNS=columns.taps, BLOCK=seen, CELLS=cells, num_warps=4,
        )  # fmt: skip
    return to_logits


def axes(coarse: list[int], fine: tuple[int, int, int], align_corners: bool) -> list[Axis]:
    """Of planes, rows and columns."""
    return [Axis.of(c, f, align_corners) for c, f in zip(coarse, fine, strict=True)]


@triton.jit
def expect(
    logits_ptr, answer_ptr, log_total_ptr, planes, height, width, tiles, coarse_planes, coarse_rows, coarse_columns,
    logits_b, logits_d, logits_y, logits_x, plane_step, row_step, column_step,
    ALIGN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b, y = (row // height).to(tl.int64), row % height
    x = tile * BLOCK + tl.arange(0, BLOCK)
    logits_ptr += b * logits_b
    upper_row, down = place(y, row_step, coarse_rows, ALIGN)
    left_column, right = place(x, column_step, coarse_columns, ALIGN)
    at = upper_row * logits_y + left_column * logits_x
    # A neighbour beyond the last point weighs nothing.
    below = tl.where(upper_row + 1 < coarse_rows, logits_y, 0)
    beside = tl.where(left_column + 1 < coarse_columns, logits_x, 0)
    held = 0
    near = plane(logits_ptr, at, below, beside, down, right)
    far = plane(logits_ptr + tl.minimum(1, coarse_planes - 1) * logits_d, at, below, beside, down, right)
    largest = tl.full([BLOCK], -3.4e38, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    weighted = tl.zeros([BLOCK], tl.float32)
    for p in range(planes):
        k, along = place(p, plane_step, coarse_planes, ALIGN)
        if k != held:
            held = k
            near = far
            far = plane(logits_ptr + tl.minimum(k + 1, coarse_planes - 1) * logits_d, at, below, beside, down, right)
        cost = (1 - along) * near + along * far
        # One exponential: of the new cost, or of how much larger it is than all before.
        rise = cost - largest
        share = tl.exp(-tl.abs(rise))
        total = tl.where(rise > 0, total * share + 1, total + share)
        weighted = tl.where(rise > 0, weighted * share + p, weighted + share * p)
        largest = tl.maximum(largest, cost)
    at = (b * height + y) * width + x
    tl.store(answer_ptr + at, weighted / total, mask=x < width)
    tl.store(log_total_ptr + at, largest + tl.log(total), mask=x < width)


@triton.jit
def expect_back(
    grad_ptr, logits_ptr, answer_ptr, log_total_ptr, to_logits_ptr,
    planes, height, width, tiles, coarse_planes, coarse_rows, coarse_columns,
    grad_b, grad_y, grad_x, logits_b, logits_d, logits_y, logits_x, to_b, to_d, to_y, to_x,
    plane_step, row_step, column_step, rows_per_cell, columns_per_cell,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b, cell_row = (row // coarse_rows).to(tl.int64), row % coarse_rows
    cell, tap = tile * CELLS + tl.arange(0, CELLS), tl.arange(0, BLOCK)
    y = first_reader(cell_row, rows_per_cell, ALIGN) + tap // COLUMNS  # [BLOCK]
    x = first_reader(cell, columns_per_cell, ALIGN)[:, None] + (tap % COLUMNS)[None, :]  # [CELLS, BLOCK]
    real = ((tap < ROWS * COLUMNS) & (y >= 0) & (y < height))[None, :] & (x >= 0) & (x < width)
    y, x = tl.maximum(y, 0), tl.maximum(x, 0)
    upper_row, down = place(y, row_step, coarse_rows, ALIGN)
    left_column, right = place(x, column_step, coarse_columns, ALIGN)
    of_row = tl.where(upper_row == cell_row, 1 - down, tl.where(upper_row + 1 == cell_row, down, 0.0))
    of_column = tl.where(left_column == cell[:, None], 1 - right, 0.0)
    of_column = tl.where(left_column + 1 == cell[:, None], right, of_column)
    pixel = b * height * width + y[None, :] * width + x
    slope = tl.load(grad_ptr + b * grad_b + y[None, :] * grad_y + x * grad_x, mask=real, other=0.0).to(tl.float32)
    slope *= of_row[None, :] * of_column
    answer = tl.load(answer_ptr + pixel, mask=real, other=0.0)
    log_total = tl.load(log_total_ptr + pixel, mask=real, other=float("inf"))  # a pixel that is not there has no share

    logits_ptr += b * logits_b
    # Pixels outside are not read: their rows and columns may lie beyond the last.
    at = tl.where(real, upper_row[None, :] * logits_y + left_column * logits_x, 0)
    below = tl.where(real & (upper_row + 1 < coarse_rows)[None, :], logits_y, 0)
    beside = tl.where(real & (left_column + 1 < coarse_columns), logits_x, 0)
    to_logits_ptr += b * to_b + cell_row * to_y + cell * to_x
    exists = cell < coarse_columns
    held = 0
    near = plane(logits_ptr, at, below, beside, down[None, :], right)
    far = plane(logits_ptr + tl.minimum(1, coarse_planes - 1) * logits_d, at, below, beside, down[None, :], right)
    to_near = tl.zeros([CELLS, BLOCK], tl.float32)
    to_far = tl.zeros([CELLS, BLOCK], tl.float32)
    for p in range(planes):
        k, along = place(p, plane_step, coarse_planes, ALIGN)
        if k != held:
            tl.store(to_logits_ptr + held * to_d, tl.sum(to_near, 1).to(to_logits_ptr.dtype.element_ty), mask=exists)
            held = k
            near = far
            next_ptr = logits_ptr + tl.minimum(k + 1, coarse_planes - 1) * logits_d
            far = plane(next_ptr, at, below, beside, down[None, :], right)
            to_near = to_far
            to_far = tl.zeros([CELLS, BLOCK], tl.float32)
        share = tl.exp((1 - along) * near + along * far - log_total) * (p - answer) * slope
        to_near += (1 - along) * share
        to_far += along * share
    tl.store(to_logits_ptr + held * to_d, tl.sum(to_near, 1).to(to_logits_ptr.dtype.element_ty), mask=exists)
    if held + 1 < coarse_planes:
        to_logits_ptr += (held + 1) * to_d
        tl.store(to_logits_ptr, tl.sum(to_far, 1).to(to_logits_ptr.dtype.element_ty), mask=exists)


@triton.jit
def place(fine, step, extent, ALIGN: tl.constexpr):
    """The coarse point at or before a fine one, and the weight of the point behind it; 0 if that does not exist."""
    position = fine * step if ALIGN else tl.maximum((fine + 0.5) * step - 0.5, 0.0)
    before = tl.minimum(position.to(tl.int32), extent - 1)
    return before, tl.where(before < extent - 1, position - before, 0.0)


@triton.jit
def first_reader(coarse, inverse, ALIGN: tl.constexpr):
    """The first fine point less than one coarse point away, or one before it where rounding leaves a doubt."""
    if ALIGN:
        return tl.floor((coarse - 1) * inverse + 0.999).to(tl.int32)
    return tl.floor((coarse - 0.5) * inverse + 0.499).to(tl.int32)


@triton.jit
def plane(plane_ptr, at, below, beside, down, right):
    """A coarse plane's value between the four points at `at`."""
    upper, upper_right = tl.load(plane_ptr + at), tl.load(plane_ptr + at + beside)
    lower, lower_right = tl.load(plane_ptr + at + below), tl.load(plane_ptr + at + below + beside)
    upper = (1 - right) * upper.to(tl.float32) + right * upper_right.to(tl.float32)
    lower = (1 - right) * lower.to(tl.float32) + right * lower_right.to(tl.float32)
    return (1 - down) * upper + down * lower
