# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Kernels of `visionattn::group_correlation`: products of two rows, one of them shifted; nothing is added atomically.

One program of each:

    correlate        a tile of a row, some groups: all disparities one after the other, the left tile held
    correlate_back   a tile of a row, some groups, some of their channels: the sums over disparities of both gradients

Letters: G groups of C channels each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionattn.ops.kernels.dispatch import on_device_of
from visionattn.ops.kernels.memory_order import empty_volume


class Tile(NamedTuple):
    """What a program holds of a map at once, in powers of two."""

    columns: int
    groups: int
    channels: int


HELD = 4096
"""Numbers of a map in a program of four warps; the backward, which holds two sums beside, takes half of them."""


def forward(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    """As `group_correlation_op`."""
    batch, channels, height, width = left.shape
    volume = empty_volume(left, batch, groups, disparities, height, width)
    size = channels // groups
    tile = tile_for(groups, size, HELD)
    tiles = triton.cdiv(width, tile.columns)
    with on_device_of(left):
        correlate[batch * height * tiles, triton.cdiv(groups, tile.groups)](
            left, right, volume, disparities, height, width, tiles, *left.stride(), *right.stride(), 1 / size,
            G=groups, C=size, BLOCK_X=tile.columns, BLOCK_G=tile.groups, BLOCK_C=tile.channels, num_warps=4,
        )  # fmt: skip
    return volume


def backward(grad: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """As `group_correlation_backward_op`."""
    batch, groups, disparities, height, width = grad.shape
    to_left, to_right = torch.empty_like(left), torch.empty_like(right)
    size = left.shape[1] // groups
    tile = tile_for(groups, size, HELD // 2)
    tiles = triton.cdiv(width, tile.columns)
    with on_device_of(left):
        correlate_back[batch * height * tiles, triton.cdiv(groups, tile.groups), triton.cdiv(size, tile.channels)](
            grad, left, right, to_left, to_right, min(disparities, width), height, width, tiles,
            *grad.stride(), *left.stride(), *right.stride(), *to_left.stride(), *to_right.stride(), 1 / size,
            G=groups, C=size, BLOCK_X=tile.columns, BLOCK_G=tile.groups, BLOCK_C=tile.channels, num_warps=4,
        )  # fmt: skip
    return to_left, to_right


def tile_for(groups: int, channels: int, held: int) -> Tile:
    """Up to 16 groups and 16 channels of each, and as many columns as are left; at most 128."""
    g, c = (min(16, triton.next_power_of_2(n)) for n in (groups, channels))
    return Tile(min(128, held // (g * c)), g, c)


@triton.jit
def correlate(
    left_ptr, right_ptr, volume_ptr, disparities, height, width, tiles,
    left_b, left_c, left_y, left_x, right_b, right_c, right_y, right_x, scale,
    G: tl.constexpr, C: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b, y = (row // height).to(tl.int64), row % height
    x, g = tile * BLOCK_X + tl.arange(0, BLOCK_X), tl.program_id(1) * BLOCK_G + tl.arange(0, BLOCK_G)
    left_ptr += b * left_b + y * left_y
    right_ptr += b * right_b + y * right_y
    volume_ptr += b * disparities * height * width * G
    inside = (x < width)[:, None] & (g < G)[None, :]
    if C <= BLOCK_C:
        ours = numbers(left_ptr, x, g, 0, x < width, left_x, left_c, G=G, C=C, BLOCK_C=BLOCK_C)
    seen = tl.minimum(disparities, (tile + 1) * BLOCK_X)
    for d in range(seen):
        shared = (x < width) & (x >= d)
        products = tl.zeros([BLOCK_X, BLOCK_G], tl.float32)
        for first in tl.static_range(0, C, BLOCK_C):
            if C > BLOCK_C:
                ours = numbers(left_ptr, x, g, first, shared, left_x, left_c, G=G, C=C, BLOCK_C=BLOCK_C)
            theirs = numbers(right_ptr, x - d, g, first, shared, right_x, right_c, G=G, C=C, BLOCK_C=BLOCK_C)
            products += tl.sum(ours * theirs, 2)
        at = ((d * height + y) * width + x)[:, None] * G + g[None, :]
        tl.store(volume_ptr + at, (products * scale).to(volume_ptr.dtype.element_ty), mask=inside)
    nothing = tl.zeros([BLOCK_X, BLOCK_G], volume_ptr.dtype.element_ty)
    for d in range(seen, disparities):
        tl.store(volume_ptr + ((d * height + y) * width + x)[:, None] * G + g[None, :], nothing, mask=inside)


@triton.jit
def correlate_back(
    grad_ptr, left_ptr, right_ptr, to_left_ptr, to_right_ptr, disparities, height, width, tiles,
    grad_b, grad_g, grad_d, grad_y, grad_x, left_b, left_c, left_y, left_x, right_b, right_c, right_y, right_x,
    to_left_b, to_left_c, to_left_y, to_left_x, to_right_b, to_right_c, to_right_y, to_right_x, scale,
    G: tl.constexpr, C: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b, y = (row // height).to(tl.int64), row % height
    x, g = tile * BLOCK_X + tl.arange(0, BLOCK_X), tl.program_id(1) * BLOCK_G + tl.arange(0, BLOCK_G)
    first = tl.program_id(2) * BLOCK_C
    grad_ptr += b * grad_b + y * grad_y
    left_ptr += b * left_b + y * left_y
    right_ptr += b * right_b + y * right_y
    to_left = tl.zeros([BLOCK_X, BLOCK_G, BLOCK_C], tl.float32)
    to_right = tl.zeros([BLOCK_X, BLOCK_G, BLOCK_C], tl.float32)
    for d in range(disparities):
        behind, ahead = (x >= d) & (x < width), x + d < width
        slopes = slopes_at(grad_ptr + d * grad_d, x, g, behind, grad_x, grad_g, G=G)
        theirs = numbers(right_ptr, x - d, g, first, behind, right_x, right_c, G=G, C=C, BLOCK_C=BLOCK_C)
        to_left += slopes[:, :, None] * theirs
        slopes = slopes_at(grad_ptr + d * grad_d, x + d, g, ahead, grad_x, grad_g, G=G)
        ours = numbers(left_ptr, x + d, g, first, ahead, left_x, left_c, G=G, C=C, BLOCK_C=BLOCK_C)
        to_right += slopes[:, :, None] * ours
    put(
        to_left_ptr + b * to_left_b + y * to_left_y, to_left * scale, x, g, first, width, to_left_x, to_left_c, G=G, C=C
    )
    to_right_ptr += b * to_right_b + y * to_right_y
    put(to_right_ptr, to_right * scale, x, g, first, width, to_right_x, to_right_c, G=G, C=C)


@triton.jit
def numbers(
    row_ptr, x, g, first, real, stride_x, stride_c, G: tl.constexpr, C: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """A row's columns x, groups g and their channels from `first` on: [X, G, C], 0 in columns that are not real."""
    c = first + tl.arange(0, BLOCK_C)
    channel = g[None, :, None] * C + c[None, None, :]
    inside = real[:, None, None] & (g < G)[None, :, None] & (c < C)[None, None, :]
    return tl.load(row_ptr + x[:, None, None] * stride_x + channel * stride_c, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def slopes_at(plane_ptr, x, g, real, stride_x, stride_g, G: tl.constexpr):
    """The volume's gradient in columns x and groups g: [X, G], 0 in columns that are not real."""
    at = plane_ptr + x[:, None] * stride_x + g[None, :] * stride_g
    return tl.load(at, mask=real[:, None] & (g < G)[None, :], other=0.0).to(tl.float32)


@triton.jit
def put(row_ptr, values, x, g, first, width, stride_x, stride_c, G: tl.constexpr, C: tl.constexpr):
    """Stores [X, G, C] where `numbers` reads it."""
    c = first + tl.arange(0, values.shape[2])
    channel = g[None, :, None] * C + c[None, None, :]
    inside = (x < width)[:, None, None] & (g < G)[None, :, None] & (c < C)[None, None, :]
    tl.store(
        row_ptr + x[:, None, None] * stride_x + channel * stride_c, values.to(row_ptr.dtype.element_ty), mask=inside
    )
